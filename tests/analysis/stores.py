"""Small stores with known contents, written as `classlens measure` writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from classlens.core.arrays import Array
from classlens.forward.agreement import BY, SUBLAYERS
from classlens.store.metadata import SHARD
from classlens.store.schema import Coords
from classlens.store.store import Store, create_store
from classlens.tasks.tokens.schema import STORED_SITES, Axes

Values = dict[str, Array]


@dataclass(frozen=True, kw_only=True)
class StoreSpec:
    """What a store is to hold; facts that are not given are drawn from ``seed``.

    ``facts`` are arrays by condition and name, such as ``{"clean": {"rank": …}}`` with all dims of the variable.
    ``measured`` leaves out images: 0 not yet, 1 measured, 2 skipped.
    """

    images: int = 12
    blocks: int = 3
    grid: tuple[int, int] = (2, 2)
    prefix: tuple[str, ...] = ("cls",)
    classes: int = 5
    conditions: tuple[str, ...] = ("clean", "random_init")
    sites: tuple[str, ...] = STORED_SITES
    embed: bool = True
    memories: bool = True
    trajectory: bool = True
    label_groups: Sequence[int] = ()
    """The group of each class; -1 for a class of none."""
    norms: bool = True
    masks: bool = False
    labels: bool = True
    twin_parameters: bool = True
    model: str = "synthetic"
    data: str = "folder:made"
    seed: int = 0
    facts: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    parameters: Mapping[str, Array] = field(default_factory=dict)
    measured: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def axes(self) -> Axes:
        tokens = len(self.prefix) + self.grid[0] * self.grid[1]
        return Axes(
            images=self.images,
            tokens=tokens,
            blocks=self.blocks,
            classes=self.classes,
            sites=self.sites,
            embed=self.embed,
            memories=self.memories,
            trajectory=self.trajectory,
            label_groups=max(self.label_groups, default=-1) + 1,
            norms=self.norms,
        )


def write_store(path: Path, spec: StoreSpec) -> dict[str, Values]:
    """Write it; returns all arrays by condition, those of parameters under ``parameters``, for slow twins to read."""
    rng = np.random.default_rng(spec.seed)
    sites = [*spec.sites, *(["embed"] if spec.embed else [])]
    identity: dict[str, Any] = {
        "model": spec.model,
        "family": "synthetic",
        "pooling": "cls" if "cls" in spec.prefix else "mean",
        "num_classes": spec.classes,
        "sites": sites,
        "memories": spec.memories,
        "images": spec.images,
        "weights": "0" * 64,
        "dtype": "float32",
        "seed": 0,
        "data": spec.data,
        "split": "",
        "data_note": "",
        "versions": {},
    }
    store = create_store(str(path), identity)
    target = rng.integers(0, spec.classes, spec.images)
    mask = rng.integers(0, 2, (spec.images, spec.axes.tokens))
    written = {}
    for name in spec.conditions:
        values = _drawn(spec, name, rng, target, mask)
        values |= {key: np.asarray(value) for key, value in spec.facts.get(name, {}).items()}
        store.add_group(name, spec.axes.schema(_coords(spec), {"condition": name}))
        _write(store, name, values, spec.measured.get(name, [1] * spec.images))
        written[name] = values
    if spec.memories:
        written["parameters"] = _parameters(store, spec, rng)
    return written


def _drawn(spec: StoreSpec, name: str, rng: np.random.Generator, target: Array, mask: Array) -> Values:
    """Facts of a condition: any ranks, logits and classes, that agree where they must."""
    values = spec.axes.schema().blank(spec.images)
    for key, array in values.items():
        if "trajectory_" in key:
            continue
        if key.endswith("rank") or key.endswith("top1"):
            values[key] = rng.integers(0, spec.classes, array.shape).astype(array.dtype)
        elif key.endswith("logit"):
            values[key] = np.asarray(rng.standard_normal(array.shape), dtype=array.dtype)
        elif key in ("key_value_agreement", "memory_match"):
            values[key] = rng.integers(0, 2, array.shape).astype(array.dtype)
    if spec.norms:
        values["norm"] = _norms(spec, name)
    values["target"] = target.astype(values["target"].dtype)
    values["prediction"] = np.where(rng.random(spec.images) < 0.6, target, (target + 1) % spec.classes).astype(
        values["prediction"].dtype
    )
    values["kept"][:] = 1
    if spec.trajectory:
        values |= _trajectory(spec, name, target)
    if spec.labels:
        values["label"] = values["target"].copy()
        values["correct"] = (values["prediction"] == target).astype(np.int8)
    if spec.masks:
        prefix = len(spec.prefix)
        values["class_token"][:, prefix:] = mask[:, prefix:]
        if name in ("context_removed", "class_removed"):
            values["kept"][:, prefix:] = mask[:, prefix:] if name == "context_removed" else 1 - mask[:, prefix:]
            gone = values["kept"] == 0
            if spec.norms:
                values["norm"] = np.where(gone[:, None], np.float32(np.nan), values["norm"])
            for key in ("rank", "top1", "logit"):
                fill = np.array(np.nan if key == "logit" else -1, dtype=values[key].dtype)
                values[key] = np.where(gone[:, None, None], fill, values[key])
    return values


def _norms(spec: StoreSpec, name: str) -> Array:
    """Norms of which some are far above the others."""
    rng = np.random.default_rng([spec.seed, 1, *name.encode()])
    shape = (spec.images, spec.blocks, spec.axes.tokens)
    return (1 + rng.random(shape) + 50 * (rng.random(shape) < 0.2)).astype(np.float32)


def _trajectory(spec: StoreSpec, name: str, target: Array) -> Values:
    """Trajectories of drawn logits that stay near those of the depth before, so that some decisions last."""
    rng = np.random.default_rng([spec.seed, *name.encode()])
    logits = rng.standard_normal((spec.images, spec.blocks + 1, spec.classes)).cumsum(axis=1)
    values = _reduced(logits, target, spec.axes.places, "trajectory")
    if spec.label_groups:
        groups = np.array(spec.label_groups)
        means = [np.exp(logits[..., groups == group]).mean(axis=-1) for group in range(spec.axes.label_groups)]
        of_groups = np.log(np.stack(means, axis=-1))
        values |= _reduced(of_groups, groups[target], spec.axes.group_places, "group_trajectory")
    return values


def _reduced(logits: Array, target: Array, places: int, prefix: str) -> Values:
    order = np.argsort(-logits, axis=-1, kind="stable")[..., :places]
    final = np.broadcast_to(order[:, -1:], order.shape)
    nothing = np.full(logits.shape[1], np.nan)
    logit = np.stack([of_image[:, own] if own >= 0 else nothing for of_image, own in zip(logits, target, strict=True)])
    rank = np.where((target < 0)[:, None], -1, (logits > logit[..., None]).sum(axis=-1))
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    values = {
        "top": order.astype(np.int16),
        "top_logit": np.take_along_axis(logits, order, axis=-1),
        "final_logit": np.take_along_axis(logits, final, axis=-1),
        "rank": rank.astype(np.int16),
        "logit": logit,
        "logsumexp": np.log(np.exp(logits).sum(axis=-1)),
        "entropy": -(shares * np.log(shares)).sum(axis=-1),
    }
    return {
        f"{prefix}_{key}": value.astype(np.float32) if value.dtype == np.float64 else value
        for key, value in values.items()
    }


def _coords(spec: StoreSpec) -> Coords:
    grid = np.indices(spec.grid).reshape(2, -1)
    prefix = len(spec.prefix)
    kinds = [*spec.prefix, *["image"] * grid.shape[1]]
    coords: dict[str, tuple[str, Array]] = {
        "image": ("image", np.array([f"{number:04}.png" for number in range(spec.images)], dtype=object)),
        "site": ("site", np.array(spec.sites, dtype=object)),
        "block": ("block", np.arange(spec.blocks)),
        "token": ("token", np.arange(len(kinds))),
        "token_kind": ("token", np.array(kinds, dtype=object)),
        "row": ("token", np.concatenate([np.full(prefix, -1), grid[0]])),
        "column": ("token", np.concatenate([np.full(prefix, -1), grid[1]])),
        **_category(spec),
    }
    if spec.trajectory:
        places = np.arange(spec.axes.places)
        coords |= {"depth": ("depth", np.arange(spec.blocks + 1)), "place": ("place", places)}
    if spec.label_groups:
        count = spec.axes.label_groups
        coords |= {"group": ("group", np.arange(count)), "class_group": ("category", np.array(spec.label_groups))}
        coords |= {"group_name": ("group", np.array([f"group {number}" for number in range(count)], dtype=object))}
        coords |= {"group_place": ("group_place", np.arange(spec.axes.group_places))}
    if spec.memories:
        coords |= {"by": ("by", np.array(BY)), "sublayer": ("sublayer", np.array(SUBLAYERS))}
    return coords


def _category(spec: StoreSpec) -> dict[str, tuple[str, Array]]:
    names = np.array([f"class {number}" for number in range(spec.classes)], dtype=object)
    return {"category": ("category", np.arange(spec.classes)), "class_name": ("category", names)}


def _write(store: Store, name: str, values: Values, measured: Sequence[int]) -> None:
    count = len(measured)
    for start in range(0, count, SHARD):
        part = slice(start, min(start + SHARD, count))
        skipped = {index: "cannot be read" for index in range(part.start, part.stop) if measured[index] == 2}
        store.write(name, start, {key: value[part] for key, value in values.items()}, skipped)
    # A run that stopped: what is not measured has no marker.
    store._array(name, "measured")[:] = np.asarray(measured, dtype=np.uint8)


def _parameters(store: Store, spec: StoreSpec, rng: np.random.Generator) -> Values:
    weights = ["model", "random_init"] if spec.twin_parameters else ["model"]
    shape = (len(weights), len(SUBLAYERS), spec.blocks, spec.classes)
    agreement = rng.random(shape).astype(np.float32)
    values = {"class_value_agreement": agreement} | dict(spec.parameters)
    coords: Coords = {
        "weights": ("weights", np.array(weights)),
        "sublayer": ("sublayer", np.array(SUBLAYERS)),
        "block": ("block", np.arange(spec.blocks)),
        **_category(spec),
    }
    dims = ("weights", "sublayer", "block", "category")
    store.write_group("parameters", {key: (dims, value) for key, value in values.items()}, coords)
    return values
