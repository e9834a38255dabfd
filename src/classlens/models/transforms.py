"""From pictures to the pixels a model sees, and back to something to look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from classlens.errors import ClasslensError

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Preprocessing:
    """A model's eval transform, with the mean and standard deviation that undo its normalization."""

    transform: Transform | None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __call__(self, image: Image.Image, name: str) -> Tensor:
        """Pixels ``[channel, height, width]``; ``name`` is for the error."""
        if self.transform is None:
            raise ClasslensError(
                f"image {name!r} cannot be prepared, as the model carries no preprocessing of its own: load it with "
                'transform=, a function from a picture to a tensor, or "paper"'
            )
        pixels: object = self.transform(image)  # what a user's function returns is not known
        if not isinstance(pixels, Tensor) or pixels.ndim != 3 or not pixels.is_floating_point():
            made = type(pixels).__name__
            if isinstance(pixels, Tensor):
                made = f"{pixels.dtype} {list(pixels.shape)}"
            raise ClasslensError(
                f"the transform made {made} of image {name!r}: expected a tensor of floats [channel, height, width]; "
                "give transform= a function that returns one"
            )
        return pixels

    def picture(self, pixels: Tensor) -> Image.Image:
        """What the model saw, as a picture; stretched to the full range where the normalization is not known."""
        x = pixels.detach().float().cpu()
        if self.mean is not None and self.std is not None:
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


def preprocessing(
    own: Transform | None, size: tuple[int, int], given: Transform | Literal["paper"] | None, *, name: str
) -> Preprocessing:
    """The transform that a user gave, the paper's, or the model's ``own``.

    ``"paper"`` is ``paper_transform``; for the MIIL models timm's own, as in the reference, and for the ``paper:``
    names what they come with.
    """
    if given == "paper" and "_miil" not in name and not name.startswith("paper:"):
        return _described(paper_transform(size))
    if given is None or given == "paper":
        return Preprocessing(None) if own is None else _described(own)
    if not callable(given):
        raise ClasslensError(f'transform {given!r} is not known: give "paper" or a function from a picture to a tensor')
    return _described(given)


def _described(transform: Any) -> Preprocessing:
    """The transform with the constants of its normalization, when it is a chain that ends in one."""
    for step in reversed(getattr(transform, "transforms", ())):
        mean, std = getattr(step, "mean", None), getattr(step, "std", None)
        if mean is not None and std is not None:
            return Preprocessing(
                transform,
                tuple(torch.as_tensor(mean).flatten().tolist()),
                tuple(torch.as_tensor(std).flatten().tolist()),
            )
    return Preprocessing(transform)
