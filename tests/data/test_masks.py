"""Tokens that show the class, compared with loops and torch's resize."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torch.nn import functional
from torchvision import transforms
from torchvision.models import ViT_B_16_Weights, ViT_H_14_Weights

from classlens.core.arrays import Array
from classlens.data.masks import token_mask
from classlens.errors import ClasslensError
from classlens.models.paper import refinement_transform
from classlens.models.transforms import Transform, paper_transform

SHAPES = [(40, 48), (333, 500), (500, 375), (31, 31), (97, 301), (224, 224)]


def blobs(shape: tuple[int, int], seed: int = 0) -> Array:
    noise = np.random.default_rng(seed).random((7, 9)) < 0.5
    return noise[np.arange(shape[0])[:, None] * 7 // shape[0], np.arange(shape[1])[None] * 9 // shape[1]]


def literal(mask: Array, resized: tuple[int, int], crop: tuple[int, int], grid: tuple[int, int]) -> list[bool]:
    """Resize by nearest source index, center crop, then the token grid: pixel by pixel."""
    height, width = mask.shape
    large = [
        [bool(mask[i * height // resized[0]][j * width // resized[1]]) for j in range(resized[1])]
        for i in range(resized[0])
    ]
    top, left = round((resized[0] - crop[0]) / 2), round((resized[1] - crop[1]) / 2)
    cropped = [row[left : left + crop[1]] for row in large[top : top + crop[0]]]
    return [cropped[i * crop[0] // grid[0]][j * crop[1] // grid[1]] for i in range(grid[0]) for j in range(grid[1])]


def nearest(mask: Array, size: tuple[int, int]) -> Array:
    """torch's own resize of the mask."""
    pixels = torch.from_numpy(np.ascontiguousarray(mask))[None, None].double()
    resized: Array = functional.interpolate(pixels, size=size, mode="nearest")[0, 0].bool().numpy()
    return resized


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("grid", [(7, 7), (14, 14), (3, 5), (16, 16), (24, 24)])
def test_the_grid_of_the_whole_mask(shape: tuple[int, int], grid: tuple[int, int]) -> None:
    mask = blobs(shape)
    tokens = token_mask(mask, None, grid)
    assert tokens.shape == (grid[0] * grid[1],)
    assert tokens.dtype == bool
    np.testing.assert_array_equal(tokens.reshape(grid), nearest(mask, grid))


def test_the_grid_by_hand() -> None:
    mask = np.zeros((5, 6), dtype=bool)
    mask[2, 4] = True
    # Rows floor(i · 5 / 2) = 0, 2; columns floor(j · 6 / 3) = 0, 2, 4.
    assert token_mask(mask, None, (2, 3)).tolist() == [False, False, False, False, False, True]
    mask[:] = False
    mask[4, 5] = True  # a pixel that no token samples
    assert not token_mask(mask, None, (2, 3)).any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("size", "grid"), [((224, 224), (14, 14)), ((224, 224), (7, 7)), ((96, 160), (6, 10))])
def test_the_papers_transform_resizes_the_whole_mask(
    shape: tuple[int, int], size: tuple[int, int], grid: tuple[int, int]
) -> None:
    mask = blobs(shape)
    tokens = token_mask(mask, paper_transform(size), grid)
    assert tokens.tolist() == literal(mask, size, size, grid)
    np.testing.assert_array_equal(tokens.reshape(grid), nearest(nearest(mask, size), grid))


def side(shape: tuple[int, int], short: int) -> tuple[int, int]:
    """The shorter side is ``short``, the other in proportion and rounded down."""
    height, width = shape
    return (short, short * width // height) if height <= width else (short * height // width, short)


def evaluation(**options: Any) -> Transform:
    transform: Transform = create_transform(is_training=False, **options)
    return transform


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("transform", "short", "crop"),
    [
        (evaluation(input_size=(3, 224, 224), interpolation="bicubic", crop_pct=0.9), math.floor(224 / 0.9), 224),
        (evaluation(input_size=(3, 224, 224), crop_pct=0.875), 256, 224),
        (evaluation(input_size=(3, 64, 64), crop_pct=1.0), 64, 64),
        (refinement_transform((224, 224)), 256, 224),
        (transforms.Compose([ViT_B_16_Weights.IMAGENET1K_V1.transforms()]), 256, 224),
        (ViT_H_14_Weights.IMAGENET1K_SWAG_E2E_V1.transforms(), 518, 518),
    ],
    ids=["timm 0.9", "timm 0.875", "timm whole", "refinement", "torchvision", "torchvision 518"],
)
def test_eval_transforms(shape: tuple[int, int], transform: Transform, short: int, crop: int) -> None:
    mask = blobs(shape)
    grid = (8, 8)
    assert token_mask(mask, transform, grid).tolist() == literal(mask, side(shape, short), (crop, crop), grid)


def test_open_clips_transform() -> None:
    library = pytest.importorskip("open_clip.transform")
    transform = library.image_transform_v2(library.PreprocessCfg(size=(64, 64)), is_train=False)
    mask = blobs((97, 301))
    assert token_mask(mask, transform, (4, 4)).tolist() == literal(mask, side((97, 301), 64), (64, 64), (4, 4))


@pytest.mark.parametrize("shape", SHAPES)
def test_positions_are_those_of_the_image(shape: tuple[int, int]) -> None:
    """The mask gets the size that torchvision gives the image, also with a maximum size."""
    transform = transforms.Compose([transforms.Resize(20, max_size=27), transforms.CenterCrop((33, 16))])
    grid = (33, 16)  # a token a pixel
    everywhere = token_mask(np.ones(shape, dtype=bool), transform, grid).reshape(grid)
    white = np.asarray(transform(Image.new("L", shape[::-1], 255))) == 255
    np.testing.assert_array_equal(everywhere, white)


def test_padding_shows_no_class() -> None:
    transform = transforms.CenterCrop((7, 4))
    mask = np.ones((4, 7), dtype=bool)
    tokens = token_mask(mask, transforms.Compose([transform]), (7, 4)).reshape(7, 4)
    assert tokens.any(axis=1).tolist() == [False, True, True, True, True, False, False]
    assert tokens[1:5].all()


def test_chains_within_chains() -> None:
    mask = blobs((40, 48))
    inner = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])
    chain = transforms.Compose([inner, transforms.Normalize([0.5] * 3, [0.5] * 3)])
    np.testing.assert_array_equal(token_mask(mask, chain, (4, 4)), token_mask(mask, paper_transform((32, 32)), (4, 4)))


def test_a_subclass_of_resize_is_an_unknown_step() -> None:
    class Mirrored(transforms.Resize):  # type: ignore[misc]
        def forward(self, img: Any) -> Any:
            return super().forward(img).transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    mask = np.zeros((32, 32), dtype=bool)
    mask[:, :16] = True
    chain = transforms.Compose([Mirrored((32, 32)), transforms.ToTensor()])
    assert token_mask(mask, chain, (1, 4)).tolist() == [False, False, True, True]


# Transforms with unknown steps


def function(image: Image.Image) -> Tensor:
    """Half the size, transposed, inverted in brightness and normalized."""
    picture = image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR)
    array = np.asarray(picture.transpose(Image.Transpose.TRANSPOSE), dtype=np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1).sub(0.5).div(0.25)


def test_an_unknown_function_receives_the_mask_as_a_picture() -> None:
    mask = np.zeros((16, 32), dtype=bool)
    mask[:8, :24] = True
    expected = np.zeros((16, 8), dtype=bool)
    expected[:12, :4] = True
    np.testing.assert_array_equal(token_mask(mask, function, (16, 8)).reshape(16, 8), expected)
    np.testing.assert_array_equal(token_mask(mask, function, (4, 2)).reshape(4, 2), expected[::4, ::4])


def test_a_function_that_inverts_brightness() -> None:
    mask = blobs((32, 32))
    np.testing.assert_array_equal(
        token_mask(mask, lambda image: -function(image), (8, 8)), token_mask(mask, function, (8, 8))
    )


def test_padding_by_a_function_shows_no_class() -> None:
    mask = np.ones((40, 20), dtype=bool)
    transform = evaluation(input_size=(3, 32, 32), crop_pct=1.0, crop_mode="border")
    tokens = token_mask(mask, transform, (8, 8)).reshape(8, 8)
    assert tokens.any(axis=0).tolist() == [False, False, True, True, True, True, False, False]


def test_known_and_unknown_steps_agree_except_at_borders() -> None:
    mask = np.zeros((200, 300), dtype=bool)
    mask[50:150, 100:220] = True
    chain = evaluation(input_size=(3, 96, 96), crop_pct=0.9)
    known = token_mask(mask, chain, (12, 12))
    unknown = token_mask(mask, lambda image: chain(image), (12, 12))
    assert known.any()
    assert (known == unknown).mean() > 0.95


@pytest.mark.wrong_types
@pytest.mark.parametrize("mask", [np.full((5, 6), 254, np.uint8), np.ones((5, 6), np.float32), np.ones(5, bool)])
def test_another_array_is_no_mask(mask: Any) -> None:
    """Bits of an integer and True would be taken one by one."""
    with pytest.raises(ClasslensError, match=r"expected bool \[height, width\]"):
        token_mask(mask, None, (2, 3))
