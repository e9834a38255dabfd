"""Resize, crop and normalization of an eval transform: read from it, changed in parts, and said in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from PIL import Image
from timm.data import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
    create_transform,
)
from torchvision import transforms
from torchvision.transforms import v2

from classlens.errors import ClasslensError, unknown
from classlens.models.geometry import Size, keeps_positions, transform_steps
from classlens.models.transforms import Transform, normalization

_MODES = {mode.value: mode for mode in transforms.InterpolationMode}
_KNOWN = {
    "ImageNet mean": (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    "CLIP mean": (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
    "mean 0.5": ((0.5,) * 3, (0.5,) * 3),
}


@dataclass(frozen=True)
class Recipe:
    """Steps of an eval transform; a number as ``resize`` is the shorter side."""

    resize: int | Size | None
    crop: Size | None
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        words = []
        if self.resize is not None:
            whole = None if isinstance(self.resize, int) else self.resize
            words.append(f"resize {self.resize}" if whole is None else f"resize to {whole[0]}×{whole[1]}")
        if self.crop is not None:
            height, width = self.crop
            words.append(f"center crop {height}" if height == width else f"center crop {height}×{width}")
        return ", ".join([*words, _constants(self.mean, self.std)])

    def build(self) -> transforms.Compose:
        """The transform."""
        mode = _MODES[self.interpolation]
        steps: list[Any] = [] if self.resize is None else [transforms.Resize(self.resize, interpolation=mode)]
        steps += [] if self.crop is None else [transforms.CenterCrop(self.crop)]
        return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(self.mean, self.std)])


@dataclass(frozen=True)
class Adjustment:
    """Parts of a transform that a user sets; None keeps the model's own.

    Args:
        crop_pct: share of the shorter side that the center crop keeps, above 0 and at most 1.
        interpolation: ``bicubic``, ``bilinear``, ``nearest``, ``lanczos`` …
        mean: one number, or one for each channel, of colors from 0 to 1.
        std: likewise.
    """

    crop_pct: float | None = None
    interpolation: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.crop_pct is not None and not 0 < self.crop_pct <= 1:
            raise ClasslensError(f"crop_pct is {self.crop_pct}: expected a share above 0 and at most 1, such as 0.9")
        if self.interpolation is not None and self.interpolation not in _MODES:
            raise unknown("interpolation", self.interpolation, _MODES)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and (not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0)):
                raise ClasslensError(
                    f"{name} is {', '.join(map(str, values))}: expected finite numbers, and std above 0"
                )

    def of(self, own: Transform | None, size: Size, channels: int) -> Transform | None:
        """A transform with these parts, for an input size."""
        if self == Adjustment():
            return own
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) not in (1, channels):
                raise ClasslensError(
                    f"{name} has {len(values)} numbers: expected one, or one for each of {channels} channels"
                )
        recipe = None if own is None else read_recipe(own)
        if recipe is None and None in (self.crop_pct, self.mean, self.std):
            raise ClasslensError(
                "the model has no transform of a resize, a center crop and a normalization, of which parts could be "
                "changed: give crop_pct, mean and std together, or transform="
            )
        mean, std = self.mean or recipe.mean, self.std or recipe.std  # type: ignore[union-attr]
        mean, std = _each(mean, channels), _each(std, channels)
        interpolation = self.interpolation or ("bicubic" if recipe is None else recipe.interpolation)
        if self.crop_pct is not None or recipe is None:
            library_transform: Transform = create_transform(
                (channels, *size), interpolation=interpolation, mean=mean, std=std, crop_pct=self.crop_pct
            )
            return library_transform
        built: Transform = Recipe(recipe.resize, size, interpolation, mean, std).build()
        return built


def read_recipe(transform: Any) -> Recipe | None:
    """The recipe of a chain of resize, center crop and normalization; None for one with other steps."""
    recipe: Recipe | None = getattr(transform, "recipe", None)
    constants = normalization(transform)
    if recipe is not None or constants is None:
        return recipe
    resize: int | Size | None = None
    crop: Size | None = None
    interpolation = "bilinear"
    for step in transform_steps(transform):
        if isinstance(step, transforms.Resize | v2.Resize) and crop is None and resize is None:
            sides = [step.size] if isinstance(step.size, int) else list(step.size)
            resize = sides[0] if len(sides) == 1 else (sides[0], sides[1])
            interpolation = getattr(step.interpolation, "value", "bilinear")
        elif isinstance(step, transforms.CenterCrop | v2.CenterCrop) and crop is None:
            sides = [step.size] if isinstance(step.size, int) else list(step.size)
            crop = (sides[0], sides[-1])
        elif not keeps_positions(step):
            return None
    return Recipe(resize, crop, interpolation, *constants)


def pillow_mode(resample: int) -> str:
    """The name of one of Pillow's interpolations."""
    return Image.Resampling(resample).name.lower()


def _each(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values * channels if len(values) == 1 else values


def _constants(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    for words, known in _KNOWN.items():
        if all(map(_close, (mean, std), known)):
            return words
    return f"mean {_numbers(mean)} and std {_numbers(std)}"


def _close(values: tuple[float, ...], others: tuple[float, ...]) -> bool:
    return len(values) == len(others) and all(
        abs(value - other) < 5e-4 for value, other in zip(values, others, strict=True)
    )


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.3g}" for value in dict.fromkeys(values))
