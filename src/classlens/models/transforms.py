"""From pictures to the pixels of a model's input, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from classlens.errors import ClasslensError

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Preprocessing:
    """A model's eval transform, with the mean and standard deviation of its normalization."""

    transform: Transform | None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __call__(self, image: Image.Image, name: str) -> Tensor:
        """Pixels ``[channel, height, width]`` of a picture; the error gives its ``name``."""
        if self.transform is None:
            raise ClasslensError(
                f"image {name!r} cannot be prepared, as the model carries no preprocessing of its own: load it with "
                'transform=, a function from a picture to a tensor, or "paper"'
            )
        pixels: object = self.transform(image)  # a user's function may return anything
        if not isinstance(pixels, Tensor) or pixels.ndim != 3 or not pixels.is_floating_point():
            kind = f"{pixels.dtype} {list(pixels.shape)}" if isinstance(pixels, Tensor) else type(pixels).__name__
            raise ClasslensError(
                f"the transform returned {kind} for image {name!r}: expected a tensor of floats [channel, height, "
                "width]; give transform= a function that returns one"
            )
        return pixels

    def picture(self, pixels: Tensor) -> Image.Image:
        """A picture of the model's input; stretched to the full range where the normalization is not known."""
        x = pixels.detach().float().cpu()
        if self.mean is not None and self.std is not None and len(self.mean) in (1, len(x)):
            x = x * torch.tensor(self.std).view(-1, 1, 1) + torch.tensor(self.mean).view(-1, 1, 1)
        else:
            low, high = x.min(), x.max()
            x = (x - low) / (high - low).clamp_min(1e-12)
        if len(x) != 3:
            x = x[:1].expand(3, -1, -1)
        array = x.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
        return Image.fromarray(array)


def paper_transform(size: tuple[int, int]) -> transforms.Compose:
    """Resize to the input size without a crop, bilinear, on 8-bit pixels, mean = std = 0.5."""
    half = (0.5, 0.5, 0.5)
    return transforms.Compose(
        [
            transforms.Resize(size, interpolation=transforms.InterpolationMode.BILINEAR),
            transforms.ToTensor(),
            transforms.Normalize(half, half),
        ]
    )


def make_preprocessing(own: Transform | None, given: object, *, paper: Transform) -> Preprocessing:
    """The user's transform, the paper's where the user gave ``"paper"``, or the model's own for None."""
    if given is None:
        return Preprocessing(None) if own is None else preprocessing(own)
    if given == "paper":
        return preprocessing(paper)
    if not callable(given):
        raise ClasslensError(f'transform {given!r} is not known: give "paper" or a function from a picture to a tensor')
    return preprocessing(given)


def preprocessing(transform: Any) -> Preprocessing:
    """A transform with the constants of its normalization, if it has one."""
    return Preprocessing(transform, *(normalization(transform) or ()))


def normalization(transform: Any) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation of the normalization at the end of a transform's chain; None without one."""
    for step in reversed(getattr(transform, "transforms", ())):
        mean, std = getattr(step, "mean", None), getattr(step, "std", None)
        if mean is not None and std is not None:
            return tuple(torch.as_tensor(mean).flatten().tolist()), tuple(torch.as_tensor(std).flatten().tolist())
    return None
