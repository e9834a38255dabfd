"""Corrupted images, made from the images themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from classlens.core.arguments import NonNegative, Seed, checked
from classlens.errors import ClasslensError
from classlens.registry import Registry

Pixels = Float[Tensor, "image channel height width"]

_SIGMA = 1 / 32
"""Standard deviation of a blur, as a share of the longer side: 7 pixels of 224."""


@dataclass(frozen=True)
class CorruptionKind:
    """``make`` takes pixels, the amount and a seed; ``amount`` is its default, None where there is none to choose."""

    about: str
    make: Callable[[Tensor, float, int], Tensor]
    amount: float | None = None


def blurred(pixels: Pixels, sigma_share: float = _SIGMA) -> Pixels:
    """Gaussian blur with a standard deviation given as a share of the longer side, cut off at three deviations."""
    sigma = max(pixels.shape[-2:]) * sigma_share
    # Padding by reflection allows at most one pixel less than a side.
    reach = round(min(3 * sigma, min(pixels.shape[-2:]) - 1))
    result: Tensor = gaussian_blur(pixels, [2 * reach + 1, 2 * reach + 1], [sigma, sigma])
    return result


def _blur(pixels: Tensor, amount: float, _: int) -> Tensor:
    return blurred(pixels, amount) if amount else pixels.clone()


def _noise(pixels: Tensor, amount: float, seed: int) -> Tensor:
    noise = torch.randn(pixels.shape[1:], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return pixels + amount * noise.to(pixels.device, pixels.dtype)


def _mean_color(pixels: Tensor, _: float, __: int) -> Tensor:
    return pixels.mean(dim=(2, 3), keepdim=True).expand_as(pixels).clone()


def _zero(pixels: Tensor, _: float, __: int) -> Tensor:
    return torch.zeros_like(pixels)


CORRUPTIONS: Registry[CorruptionKind] = Registry(
    "corruption",
    {
        "blur": CorruptionKind(
            "a Gaussian blur; `amount` is its standard deviation as a share of the longer side, 1/32 by default",
            _blur,
            _SIGMA,
        ),
        "noise": CorruptionKind(
            "normal noise is added, the same to every image; `amount` is its standard deviation in units of "
            "preprocessed pixels, 1 by default",
            _noise,
            1.0,
        ),
        "mean_color": CorruptionKind("every pixel gets the mean color of its image", _mean_color),
        "zero": CorruptionKind("every preprocessed pixel is 0: the mean color of the transform", _zero),
    },
)


@checked
@dataclass(frozen=True)
class Corruption:
    """Makes the corrupt images of ``Lens.sweep`` from the clean ones.

    Args:
        kind: ``"blur"``, ``"noise"``, ``"mean_color"`` or ``"zero"``.
        amount: standard deviation of the blur (share of the longer side, 1/32 by default) or of the noise (units of
            preprocessed pixels, 1 by default); None for the default.
        seed: seed of the noise.

    Raises:
        ClasslensError: an unknown kind, or an amount of a kind that has none.

    Examples:
        >>> import classlens, torch
        >>> classlens.Corruption("mean_color")(torch.rand(1, 3, 32, 32)).std(dim=(2, 3)).max() < 1e-6
        tensor(True)
    """

    kind: str
    amount: NonNegative | None = None
    seed: Seed = 0

    def __post_init__(self) -> None:
        if CORRUPTIONS[self.kind].amount is None and self.amount is not None:
            raise ClasslensError(f"corruption {self.kind!r} has no amount to choose: leave amount out")

    def __call__(self, pixels: Float[Tensor, "image channel height width"]) -> Tensor:
        """Corrupted pixels.

        Args:
            pixels: preprocessed pixels ``[image, channel, height, width]``.

        Returns:
            New pixels of the same shape.

        Raises:
            ClasslensError: a tensor of another shape.

        Examples:
            >>> import classlens, torch
            >>> classlens.Corruption("blur")(torch.rand(1, 3, 32, 32)).shape
            torch.Size([1, 3, 32, 32])
        """
        kind = CORRUPTIONS[self.kind]
        amount = kind.amount if self.amount is None else self.amount
        return kind.make(pixels, 0.0 if amount is None else amount, self.seed)
