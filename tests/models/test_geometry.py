"""Where the model's input lies in a photo: a bright square, found again in the pixels that torchvision really makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.models import ViT_B_16_Weights
from torchvision.transforms import v2

from classlens.models.geometry import Box, input_window
from classlens.models.transforms import paper_transform


def chain(*steps: Any) -> Any:
    return transforms.Compose([*steps, transforms.ToTensor()])


TRANSFORMS: dict[str, Any] = {
    "shorter side and crop": chain(transforms.Resize(73), transforms.CenterCrop(64)),
    "crop alone": chain(transforms.CenterCrop((51, 40))),
    "crop before resize": chain(transforms.CenterCrop(60), transforms.Resize((90, 80))),
    "no crop": paper_transform((64, 48)),
    "longest side": chain(transforms.Resize(80, max_size=100)),
    "padded": chain(transforms.Resize(40, max_size=60), transforms.CenterCrop((71, 80))),
    "torchvision's own": ViT_B_16_Weights.IMAGENET1K_V1.transforms(),
    "second version": v2.Compose(
        [v2.ToImage(), v2.Resize([73]), v2.CenterCrop(64), v2.ToDtype(torch.float32, scale=True)]
    ),
}
SIZES = [(97, 101), (101, 97), (67, 203), (301, 83), (300, 451)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_bright_square_is_found_again(name: str, size: tuple[int, int]) -> None:
    height, width = size
    # Off the center, so that a mirrored or shifted window shows.
    row, column, half = int(height * 0.48), int(width * 0.52), 5
    array = np.zeros((height, width, 3), dtype=np.uint8)
    array[row - half : row + half + 1, column - half : column + half + 1] = 255
    pixels = TRANSFORMS[name](Image.fromarray(array))[0].double()
    pixels = pixels - pixels.min()
    found = input_window(size, TRANSFORMS[name])
    assert found is not None
    left, top, right, bottom = found.frame
    rows, columns = torch.arange(pixels.shape[0]) + 0.5, torch.arange(pixels.shape[1]) + 0.5
    y = float((pixels.sum(dim=1) * rows).sum() / pixels.sum()) / pixels.shape[0]
    x = float((pixels.sum(dim=0) * columns).sum() / pixels.sum()) / pixels.shape[1]
    assert top + y * (bottom - top) == pytest.approx(row + 0.5, abs=0.5)
    assert left + x * (right - left) == pytest.approx(column + 0.5, abs=0.5)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_is_seen_is_what_changes_the_pixels(name: str, size: tuple[int, int]) -> None:
    """White in the window alone makes as bright pixels as white everywhere; black in it leaves next to none."""
    found = input_window(size, TRANSFORMS[name])
    assert found is not None
    left, top, right, bottom = found.visible
    assert left >= 0 <= top
    assert right <= size[1]
    assert bottom <= size[0]
    inside = np.zeros(size, dtype=np.uint8)
    inside[round(top) : round(bottom), round(left) : round(right)] = 255
    light = [
        float(TRANSFORMS[name](Image.fromarray(one).convert("RGB"))[0].double().sum())
        for one in (np.zeros_like(inside), inside, 255 - inside, np.full_like(inside, 255))
    ]
    share = [(one - light[0]) / (light[3] - light[0]) for one in light[1:3]]
    assert share[0] > 0.97, "all of the light comes from the window"
    assert share[1] < 0.03, "and none from beyond"


@pytest.mark.parametrize("size", [(3, 2), (1, 9), (5, 4)], ids=str)
@pytest.mark.parametrize("crop", [(30, 24), (31, 44), (60, 20)], ids=str)
def test_tiny_photos(size: tuple[int, int], crop: tuple[int, int]) -> None:
    """Without interpolation every pixel is one of the photo's, told by its color; padding is black."""
    nearest = transforms.InterpolationMode.NEAREST
    transform = transforms.Compose([transforms.Resize(32, nearest, max_size=50), transforms.CenterCrop(crop)])
    rows, columns = np.mgrid[: size[0], : size[1]]
    colors = np.stack([rows + 1, columns + 1, rows * 0], axis=-1).astype(np.uint8)
    shown = np.asarray(transform(Image.fromarray(colors))).astype(int)
    found = input_window(size, transform)
    assert found is not None
    left, top, right, bottom = found.frame
    y = top + (np.arange(crop[0]) + 0.5) * (bottom - top) / crop[0]
    x = left + (np.arange(crop[1]) + 0.5) * (right - left) / crop[1]
    inside = ((y > 0) & (y < size[0]))[:, None] & ((x > 0) & (x < size[1]))[None]
    np.testing.assert_array_equal(shown[..., 0], np.where(inside, np.floor(y)[:, None] + 1, 0))
    np.testing.assert_array_equal(shown[..., 1], np.where(inside, np.floor(x)[None] + 1, 0))


def test_by_hand() -> None:
    # 100 × 200 to 50 × 100, of which columns 30 to 69 and rows 5 to 44 remain: every pixel two of the photo.
    found = input_window((100, 200), chain(transforms.Resize(50), transforms.CenterCrop(40)))
    assert found is not None
    assert found.frame == found.visible == Box(60, 10, 140, 90)
    assert found.scaled(0.5, 2.0).frame == Box(30, 20, 70, 180)
    # Two rows of padding above and three below; of three columns too many, 1.5 rounded to even go at the left.
    found = input_window((4, 7), transforms.Compose([transforms.CenterCrop((9, 4))]))
    assert found is not None
    assert found.frame == Box(2, -2, 6, 7)
    assert found.visible == Box(2, 0, 6, 4)


def test_padding_brings_nothing_back_that_was_cropped() -> None:
    found = input_window((20, 20), chain(transforms.CenterCrop(10), transforms.CenterCrop(16)))
    assert found is not None
    assert found.frame == Box(2, 2, 18, 18)
    assert found.visible == Box(5, 5, 15, 15)


@pytest.mark.parametrize(
    "transform",
    [
        lambda image: image,
        chain(transforms.RandomCrop(3)),
        chain(transforms.Pad(2)),
        chain(v2.Resize(None, max_size=8)),
    ],
)
def test_other_steps_are_not_guessed(transform: Any) -> None:
    assert input_window((20, 30), transform) is None
