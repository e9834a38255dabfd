"""Evaluations of a small model on a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

import classlens
from classlens import EvaluateResult, Lens
from classlens.data.class_mapping import map_classes
from classlens.data.dataset import Dataset
from classlens.models.builtin.cifar10 import CLASS_NAMES
from classlens.models.transforms import paper_transform
from tests import zoo

VARIANT = "cls_not_square"
GRID = zoo.VARIANTS[VARIANT].grid
IMAGES = 70
"""More than a shard of a store holds."""
SETTINGS: dict[str, Any] = {
    "methods": ["class_gradient", "rollout", "random"],
    "metrics": ["removal", "masking", "pointing", "class_sensitivity"],
    "steps": 4,
    "permutations": 2,
    "batch_size": 32,
    "workers": 0,
}


class Evaluation(NamedTuple):
    out: Path
    result: EvaluateResult


def tiny_lens(seed: int = 0, names: tuple[str, ...] = CLASS_NAMES) -> Lens:
    """A random model for the classes of CIFAR-10 and further ones."""
    others = [f"other {number}" for number in range(zoo.CLASSES - len(names))]
    module = zoo.build(VARIANT, torch.float64, seed=seed)
    transform = paper_transform(zoo.VARIANTS[VARIANT].size)
    return classlens.load(module, class_names=[*names, *others], transform=transform)


def labels_of(dataset: Dataset, lens: Lens) -> list[int]:
    labels: list[int] = map_classes(dataset, lens.classes, model_name="tiny").tolist()
    return labels


def pixels_of(dataset: Dataset, lens: Lens, image: int) -> torch.Tensor:
    return lens.preprocessing(dataset.picture(image), "")[None].to(lens.view.dtype)
