"""Pixels that take the place of removed ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.models.corruptions import blurred
from classlens.tasks.evaluation.image_batch import ImageBatch


def mean_color(batch: ImageBatch) -> Float[Tensor, "image channel height width"]:
    """The mean color of the model's normalization, or that of the image for a transform without normalization."""
    if batch.lens.preprocessing.mean is None:
        return batch.pixels.mean(dim=(2, 3), keepdim=True).expand_as(batch.pixels)
    return torch.zeros_like(batch.pixels)


def black(batch: ImageBatch) -> Float[Tensor, "image channel height width"]:
    """0 before the model's normalization. Black is further from natural images than the mean color."""
    mean, std = batch.lens.preprocessing.mean, batch.lens.preprocessing.std
    if mean is None or std is None:
        return torch.zeros_like(batch.pixels)
    color = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
    return color.to(batch.pixels)[:, None, None].expand_as(batch.pixels)


def blur(batch: ImageBatch) -> Float[Tensor, "image channel height width"]:
    """The blurred image, which keeps colors and large shapes.

    The blur is Gaussian, with a standard deviation of a 32nd of the longer side, cut off at three deviations. Blurred
    pixels are the baseline of Fong and Vedaldi, *Interpretable Explanations of Black Boxes by Meaningful Perturbation*,
    ICCV 2017.
    """
    return blurred(batch.pixels)


FILLS: Mapping[str, Callable[[ImageBatch], Tensor]] = {"mean": mean_color, "black": black, "blur": blur}


def replaced(
    pixels: Float[Tensor, "image channel height width"],
    indices: Int[Tensor, "image pixel"],
    others: Float[Tensor, "image channel height width"],
) -> Float[Tensor, "image channel height width"]:
    """Images with some pixels taken from others, all channels of a pixel together."""
    images, _, height, width = pixels.shape
    mask = torch.zeros(images, height * width, dtype=torch.bool).scatter_(1, indices, True)
    return torch.where(mask.view(images, 1, height, width), others, pixels)
