"""Images in any form that a user gives, as pixels for a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from classlens.core.arguments import Takes
from classlens.errors import ClasslensError
from classlens.models.images import ImageLike, read_pictures
from classlens.models.transforms import Preprocessing
from classlens.models.view import ModelView

Images = Annotated[
    ImageLike | Tensor | Iterable[ImageLike],
    Takes("a path, a PIL image, an array, preprocessed pixels as a tensor, or several of the first three in a list"),
]


def prepare_images(
    images: Images, view: ModelView, preprocessing: Preprocessing
) -> tuple[list[str], Float[Tensor, "image channel height width"]]:
    """Names and pixels of images; raises ClasslensError for images that the model cannot take."""
    if isinstance(images, Tensor):
        pixels = prepared_pixels(images, view)
        return [f"image {number}" for number in range(len(pixels))], pixels
    pictures = read_pictures(images, smallest=view.grid(view.input_size))
    prepared = [preprocessing(picture.image, picture.name) for picture in pictures]
    for picture, pixels in zip(pictures, prepared, strict=True):
        check_prepared(pixels, picture.image.size, view, f"image {picture.name!r}")
        if pixels.shape != prepared[0].shape:
            raise ClasslensError(
                f"the transform makes {list(pixels.shape)} of image {picture.name!r} and "
                f"{list(prepared[0].shape)} of {pictures[0].name!r}: images traced together need one size"
            )
    return [picture.name for picture in pictures], torch.stack(prepared)


def prepared_pixels(
    tensor: Tensor, view: ModelView, name: str = "images"
) -> Float[Tensor, "image channel height width"]:
    """A tensor that was given as the argument ``name``; raises ClasslensError for one that holds no pixels."""
    pixels = tensor if tensor.ndim == 4 else tensor[None]
    if pixels.ndim != 4 or pixels.shape[1] != view.channels or not len(pixels):
        raise ClasslensError(
            f"a tensor of shape {list(tensor.shape)} was given as {name}: expected preprocessed pixels "
            f"[image, {view.channels}, height, width]"
        )
    if not pixels.is_floating_point():
        raise ClasslensError(
            f"a tensor of type {tensor.dtype} was given as {name}: tensors are taken as preprocessed pixels; "
            "give pictures as arrays, PIL images or paths"
        )
    return pixels.detach()


def check_prepared(pixels: Tensor, picture: tuple[int, int], view: ModelView, name: str) -> None:
    """Raises ClasslensError for pixels of a picture, of a width and height, that the model does not take."""
    channels, height, width = pixels.shape
    if channels != view.channels:
        raise ClasslensError(
            f"the transform makes {channels} channels of {name}, but model {view.name!r} takes {view.channels}: a "
            "photo has three; give a transform= that makes the model's channels, or tensors of pixels"
        )
    if (height, width) != view.input_size and not view.any_size:
        size = f"{view.input_size[0]}×{view.input_size[1]}"
        raise ClasslensError(
            f"the transform makes {height}×{width} pixels of {name}, a picture of {picture[1]}×{picture[0]}, but model "
            f"{view.name!r} takes {size}: a transform has to bring every picture to {size}, such as with Resize and "
            "CenterCrop"
        )
