"""Images in any form that a user gives, as pixels for a model."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from classlens.errors import ClasslensError
from classlens.models.images import ImageLike, read_pictures
from classlens.models.transforms import Preprocessing
from classlens.models.view import ModelView

Images = ImageLike | Tensor | Iterable[ImageLike]


def prepare_images(
    images: Images, view: ModelView, preprocessing: Preprocessing
) -> tuple[list[str], Float[Tensor, "image channel height width"]]:
    """Names and pixels of images; raises ClasslensError for images that the model cannot take."""
    if isinstance(images, Tensor):
        pixels = images if images.ndim == 4 else images[None]
        if pixels.ndim != 4 or pixels.shape[1] != view.channels or not len(pixels):
            raise ClasslensError(
                f"a tensor of shape {list(images.shape)} was given as images: expected preprocessed pixels "
                f"[image, {view.channels}, height, width]"
            )
        if not pixels.is_floating_point():
            raise ClasslensError(
                f"a tensor of type {images.dtype} was given as images: tensors are taken as preprocessed pixels; "
                "give pictures as arrays, PIL images or paths"
            )
        return [f"image {number}" for number in range(len(pixels))], pixels.detach()
    pictures = read_pictures(images, smallest=view.grid(view.input_size))
    prepared = [preprocessing(picture.image, picture.name) for picture in pictures]
    for picture, pixels in zip(pictures, prepared, strict=True):
        if pixels.shape[0] != view.channels:
            raise ClasslensError(
                f"the transform makes {pixels.shape[0]} channels of image {picture.name!r}, but model "
                f"{view.name!r} takes {view.channels}: give another transform="
            )
        if pixels.shape != prepared[0].shape:
            raise ClasslensError(
                f"the transform makes {list(pixels.shape)} of image {picture.name!r} and "
                f"{list(prepared[0].shape)} of {pictures[0].name!r}: images traced together need one size"
            )
    return [picture.name for picture in pictures], torch.stack(prepared)
