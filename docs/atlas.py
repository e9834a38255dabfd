"""Numbers of the page on atlases: ``python docs/atlas.py PHOTOS [WORK]``.

An atlas of the built-in model over training photos names, for each class, the five hidden units that add most to it and
the head that does. Test photos are then run without them. ``PHOTOS`` holds ``train/<class>/*.jpg`` and ``test``.
``WORK`` keeps the store, so that a stopped run continues.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import classlens
from classlens.data.class_mapping import map_classes
from classlens.data.loading import ImageReader
from classlens.forward.run import run

MODEL = "builtin:photos"
UNITS, DRAWS, PER_CLASS = 5, 2, 20


def main(photos: Path, work: Path) -> None:
    store = work / "train.zarr"
    classlens.measure(MODEL, f"folder:{photos / 'train'}", store, units=64, per_class=100, shuffle=True, workers=0)
    atlas, lens = classlens.atlas(store), classlens.load(MODEL)
    dataset = classlens.open_dataset(f"folder:{photos / 'test'}", per_class=PER_CLASS, seed=0)
    reader = ImageReader(dataset, lens.preprocessing, (3, 224, 224), None)
    pixels = reader.batch(range(len(dataset))).pixels
    labels = map_classes(dataset, lens.classes, model_name=MODEL)
    plain = logits_of(lens, pixels)
    rng = np.random.default_rng(0)
    rows = []
    for category, name in enumerate(lens.classes.names):
        writers = atlas.unit_writers.query(f"category == {category}").nlargest(UNITS, "contribution")
        named = list(zip(writers["block"], writers["unit"], strict=True))
        heads = atlas.writers.query(f"category == {category} and group == 'all' and sublayer == 'attn'")
        head = heads.nlargest(1, "contribution").iloc[0]
        others = rng.choice([each for each in range(6) if each != head["head"]], DRAWS, replace=False)
        rows.append(
            {
                "class": name,
                "units": ", ".join(f"{block}.{unit}" for block, unit in named),
                "said": writers["contribution"].sum(),
                **without(lens, pixels, plain, labels, category, unit_edits(named), "units"),
                **mean_of(
                    [
                        without(lens, pixels, plain, labels, category, unit_edits(drawn(rng, named)), "random")
                        for _ in range(DRAWS)
                    ]
                ),
                "head": f"{head['block']}.{head['head']}",
                "head said": head["contribution"],
                **without(lens, pixels, plain, labels, category, head_edits(head["block"], head["head"]), "head"),
                **mean_of(
                    [
                        without(lens, pixels, plain, labels, category, head_edits(head["block"], each), "others")
                        for each in others
                    ]
                ),
            }
        )
        print(rows[-1], flush=True)
    for column in [key for key in rows[0] if isinstance(rows[0][key], float)]:
        values = [row[column] for row in rows]
        print(f"{column}: mean {np.mean(values):.3f}")
    for said, lost in (("said", "units lost"), ("head said", "head lost")):
        pair = [[row[key] for row in rows] for key in (said, lost)]
        print(f"{said} and {lost}: correlation {np.corrcoef(pair)[0, 1]:.2f}")


def unit_edits(units: list[tuple[int, int]]) -> list[Any]:
    blocks = sorted({block for block, _ in units})
    return [classlens.AblateNeurons([unit for b, unit in units if b == block], blocks=[block]) for block in blocks]


def head_edits(block: int, head: int) -> list[Any]:
    return [classlens.AblateHeads([int(head)], blocks=[int(block)])]


def drawn(rng: np.random.Generator, named: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """As many other units of the same blocks."""
    units = {block: [unit for b, unit in named if b == block] for block, _ in named}
    return [
        (block, int(unit))
        for block, taken in units.items()
        for unit in rng.choice(np.setdiff1d(np.arange(384), taken), len(taken), replace=False)
    ]


def without(
    lens: Any, pixels: torch.Tensor, plain: np.ndarray, labels: np.ndarray, category: int, edits: list[Any], prefix: str
) -> dict[str, float]:
    """Mean loss of the logit above the mean class, and accuracy of the class and of the others."""
    with lens.edit(*edits):
        edited = logits_of(lens, pixels)
    of_class = labels == category
    above = [logits[of_class, category] - logits[of_class].mean(axis=1) for logits in (plain, edited)]
    right = edited.argmax(axis=1) == labels
    before = plain.argmax(axis=1) == labels
    return {
        f"{prefix} lost": float((above[0] - above[1]).mean()),
        f"{prefix} accuracy": float(right[of_class].mean() - before[of_class].mean()),
        f"{prefix} accuracy of others": float(right[~of_class].mean() - before[~of_class].mean()),
    }


def mean_of(results: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([result[key] for result in results])) for key in results[0]}


def logits_of(lens: Any, pixels: torch.Tensor) -> np.ndarray:
    return torch.cat([run(lens.view, batch) for batch in pixels.split(32)]).numpy()


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    if len(sys.argv) == 3:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(sys.argv[1]), Path(scratch))
