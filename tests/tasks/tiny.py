"""Small models, small data sets, and probes by scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

import classlens
from classlens import Lens
from classlens.data.open_dataset import open_dataset
from classlens.models.transforms import paper_transform
from tests import literal, zoo
from tests.data.pictures import folder

NAMES = ("cat", "dog", "frog", *(f"other {number}" for number in range(8)))
DATA_CLASSES = NAMES[:3]
BLOCKS, TOKENS, WIDTH = 3, 5, 24
"""Sizes of the model ``cls``."""
LOCAL: dict[str, Any] = {"workers": 0}
"""Options of a run in this process."""
Numbers = np.ndarray[Any, np.dtype[np.float64]]


class Data(NamedTuple):
    train: str
    test: str


def data_in(root: Path, train: int = 30, test: int = 9) -> Data:
    """Images of three of the eleven classes; test images differ from training images."""
    train_spec = folder(root / "train", train, DATA_CLASSES)
    folder(root / "all", train + test, DATA_CLASSES)
    for path in sorted((root / "all").rglob("*.png")):
        if int(path.stem) < train:
            path.unlink()
    return Data(train_spec, f"folder:{root / 'all'}")


def lens_of(name: str = "cls", dtype: torch.dtype = torch.float64) -> Lens:
    size = zoo.VARIANTS[name].size
    return classlens.load(zoo.build(name, dtype), class_names=list(NAMES), transform=paper_transform(size))


def pixels_of(lens: Lens, data: str) -> Tensor:
    dataset = open_dataset(data)
    return torch.stack([lens.preprocessing(dataset.picture(image), "") for image in range(len(dataset))])


def labels_of(data: str) -> list[int]:
    return [NAMES.index(name.partition("/")[0]) for name in open_dataset(data).names]


def states_of(lens: Lens, data: str, dtype: torch.dtype = torch.float64) -> literal.States:
    """States at every site, from timm's modules."""
    return literal.states(lens.view.module, pixels_of(lens, data).to(dtype))


def ridge_of(x: Numbers, label: list[int], alpha: float = 1.0) -> Any:
    signs = np.where(np.array(label)[:, None] == np.arange(len(NAMES)), 1.0, -1.0)
    return Ridge(alpha, solver="cholesky").fit(x, signs)


def rank_of(scores: Numbers, label: int) -> tuple[int, int]:
    """Rank of the label and top-1 class, by loops."""
    row = scores.tolist()
    return sum(score > row[label] for score in row), row.index(max(row))
