"""Pairs of small stores of the same images, with other orders of images and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from classlens.core.arrays import Array
from tests.analysis.atlas.stores import AtlasSpec, write_atlas_store
from tests.analysis.stores import StoreSpec

NAMES = tuple("abcdefgh")
"""Names of classes."""


@dataclass(frozen=True, kw_only=True)
class SideSpec:
    """One of two stores. ``images`` are numbers of photos, the same number being the same photo in both.

    ``labels`` gives the class of a photo, by name; None for a photo without a label. Predictions are right with
    ``skill``. ``content``: whether the store has the content of its photos.
    """

    images: Sequence[int]
    labels: Mapping[int, str | None]
    classes: Sequence[str] = NAMES[:5]
    names: Mapping[int, str] = field(default_factory=dict)
    content: bool = True
    skill: float = 0.7
    blocks: int = 3
    heads: Sequence[int] = (3, 2, 3)
    trajectory: bool = True
    attribution: bool = True
    measured: Sequence[int] | None = None
    model: str = "synthetic"
    seed: int = 0
    facts: Mapping[str, Array] = field(default_factory=dict)


def write_side(path: Path, spec: SideSpec) -> Path:
    """Write it as `classlens measure --attribution` does."""
    rng = np.random.default_rng([spec.seed, 9])
    count = len(spec.images)
    label = np.array([_place(spec, spec.labels[photo]) for photo in spec.images], dtype=np.int16)
    other = rng.integers(0, len(spec.classes), count)
    prediction = np.where((rng.random(count) < spec.skill) & (label >= 0), label, other).astype(np.int16)
    facts: dict[str, Array] = {
        "label": label,
        "prediction": prediction,
        "target": np.where(label >= 0, label, prediction).astype(np.int16),
        "correct": np.where(label < 0, -1, label == prediction).astype(np.int8),
        "confidence": rng.uniform(0.2, 1, count).astype(np.float32),
        **spec.facts,
    }
    clean = StoreSpec(
        images=count,
        blocks=spec.blocks,
        classes=len(spec.classes),
        conditions=("clean",),
        memories=False,
        trajectory=spec.trajectory,
        model=spec.model,
        seed=spec.seed,
        facts={"clean": facts},
        measured={} if spec.measured is None else {"clean": spec.measured},
    )
    absent = ["units", "head_tokens", "unit_tokens", "head_maps"] + ([] if spec.attribution else ["attribution"])
    write_atlas_store(path, AtlasSpec(clean=clean, heads=spec.heads, absent=absent, seed=spec.seed))
    group: Any = zarr.open_group(str(path), mode="r+")["clean"]
    group["image"][:] = np.array([spec.names.get(photo, f"{photo:04}.png") for photo in spec.images], dtype=object)
    group["class_name"][:] = np.array(list(spec.classes), dtype=object)
    if spec.content:
        group["content"][:] = np.array(spec.images, dtype=np.int64) + 1000
    return path


def _place(spec: SideSpec, name: str | None) -> int:
    return -1 if name not in spec.classes else [*spec.classes].index(str(name))


def drawn_labels(photos: int, seed: int = 0, classes: Sequence[str] = NAMES[:5]) -> dict[int, str | None]:
    """A class for each photo."""
    rng = np.random.default_rng([seed, 7])
    return {photo: str(rng.choice(classes)) for photo in range(photos)}


PHOTOS = 90
LABELS: dict[int, str | None] = drawn_labels(PHOTOS) | {3: None, 41: None}
FIRST = SideSpec(images=range(PHOTOS), labels=LABELS, measured=[0 if i in (7, 80) else 1 for i in range(PHOTOS)])
SECOND = SideSpec(
    images=[photo for photo in np.random.default_rng(5).permutation(PHOTOS + 4) if photo % 11],
    labels={**LABELS, 20: "c" if LABELS[20] != "c" else "b", **dict.fromkeys(range(PHOTOS, PHOTOS + 4), "b")},
    names={photo: f"other/{photo}.jpg" for photo in range(0, PHOTOS, 3)},
    classes=("e", "f", "d", "c", "b", "g"),
    skill=0.5,
    model="tuned",
    seed=1,
)
"""Another order of photos and classes, without class a, with two of its own, and a photo of another label."""
