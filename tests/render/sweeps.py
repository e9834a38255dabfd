"""Synthetic records of causal sweeps: random values of which every effect follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

Record = dict[str, Any]


@dataclass(frozen=True)
class SweepSizes:
    """The subject of a record of a sweep; ``equal`` are images with one metric for both of the pair.

    ``steps`` are those of estimates, 0 for an exact sweep; ``agreement`` is the record of each image.
    """

    over: str = "heads"
    blocks: Sequence[int] = (0, 1, 2, 3, 4, 5)
    count: int = 4
    prefix: tuple[str, ...] = ("cls",)
    grid: tuple[int, int] = (3, 5)
    images: Sequence[str] = ("cat.png",)
    corrupt: str = "dog.png"
    target: str = "cat"
    direction: str = "denoise"
    equal: Sequence[int] = ()
    cls_factor: float = 1.0
    name: str = "builtin:cifar10"
    steps: int = 0
    agreement: Record | None = None

    @property
    def parts(self) -> list[Any]:
        if self.over == "sublayers":
            return ["attn", "mlp"]
        return list(range(len(self.prefix) + self.grid[0] * self.grid[1] if self.over == "tokens" else self.count))


def make_sweep(sizes: SweepSizes) -> Record:
    random = np.random.default_rng(3)
    return {
        "classlens": "0.1.0",
        "model": {
            "name": sizes.name,
            "checkpoint": None,
            "blocks": 6,
            "heads": 4,
            "num_classes": 10,
            "problem_type": "single_label_classification",
            "prefix": list(sizes.prefix),
            "input_size": [24, 40],
            "dtype": "float32",
            "transform": "Compose()",
        },
        "over": sizes.over,
        "metric": "log_odds",
        "direction": sizes.direction,
        "site": "resid_pre" if sizes.over == "tokens" else None,
        "approximate": sizes.steps > 0,
        "steps": sizes.steps or None,
        "blocks": list(sizes.blocks),
        "images": [_image(sizes, number, random) for number in range(len(sizes.images))],
    }


def _image(sizes: SweepSizes, number: int, random: np.random.Generator) -> Record:
    clean, corrupt = random.normal(3, 1), random.normal(-3, 1)
    shape = (len(sizes.blocks), len(sizes.parts))
    effects = random.normal(0, 0.2, shape)
    if sizes.over == "tokens" and sizes.prefix:
        effects[:, 0] *= sizes.cls_factor
    base, source = (corrupt, clean) if sizes.direction == "denoise" else (clean, corrupt)
    patched = base + effects * (source - base)
    equal = number in sizes.equal
    words = {"heads": "head {0}.{1}", "units": "unit {0}.{1}"}.get(sizes.over, "{1} of block {0}")
    largest = []
    for place in () if equal else np.argsort(-np.abs(effects).ravel())[:30]:
        row, column = divmod(int(place), shape[1])
        part, block, effect = sizes.parts[column], sizes.blocks[row], float(effects[row, column])
        name = words.format(block, part)
        largest.append(
            {
                "block": block,
                "part": part,
                "name": name,
                "effect": effect,
                "patched": float(patched[row, column]),
                "words": f"{name[0].upper()}{name[1:]} has words of its own",
            }
        )
    name = sizes.images[number]
    guess = {"index": 3, "name": sizes.target, "logit": 5.0, "probability": 0.812}
    return {
        "name": name,
        "label": name,
        "corrupt_name": sizes.corrupt,
        "corrupt_label": sizes.corrupt,
        "corruption": None,
        "target": {"index": 3, "name": sizes.target, "chosen": "predicted"},
        "against": None,
        "predictions": {"clean": guess, "corrupt": {**guess, "probability": 0.1}},
        "clean": clean,
        "corrupt": clean if equal else corrupt,
        "agreement": sizes.agreement,
        "grid": list(sizes.grid),
        "parts": sizes.parts,
        "patched": patched.tolist(),
        "effect": [[None] * shape[1]] * shape[0] if equal else effects.tolist(),
        "largest": largest,
    }


def make_pairs(sizes: SweepSizes) -> list[tuple[Image.Image, Image.Image]]:
    """Clean pictures of different grays, and one corrupt picture for all."""
    return [
        (Image.new("RGB", (40, 24), (40 * n, 90, 20)), Image.new("RGB", (40, 24))) for n in range(len(sizes.images))
    ]
