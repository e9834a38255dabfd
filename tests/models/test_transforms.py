"""From pictures to pixels and back, with values worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2

import classlens
from classlens.errors import ClasslensError
from classlens.models.transforms import Preprocessing, make_preprocessing, paper_transform

SMALL: dict[str, Any] = {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 3, "num_classes": 3}


def gray(rows: list[list[int]]) -> Image.Image:
    return Image.fromarray(np.repeat(np.array(rows, dtype=np.uint8)[..., None], 3, axis=2))


def photo(width: int, height: int) -> Image.Image:
    """Smooth, with every value from dark to bright: a photo rather than noise."""
    y, x = np.mgrid[:height, :width]
    planes = [255 * x / (width - 1), 255 * y / (height - 1), 127.5 * (1 + np.sin(x / 3 + y / 5))]
    return Image.fromarray(np.stack(planes, axis=-1).round().astype(np.uint8))


def paper(size: tuple[int, int]) -> Preprocessing:
    return make_preprocessing(None, "paper", paper=paper_transform(size))


def of_user(transform: Any) -> Preprocessing:
    return make_preprocessing(None, transform, paper=paper_transform((32, 32)))


def test_the_transform_of_the_paper_by_hand() -> None:
    # Halved with bilinear antialiasing: the new pixels' centers lie at 1 and 3, the old ones' at 0.5, 1.5, 2.5 and 3.5,
    # and the weight falls from 1 to 0 over two old pixels: 0.75, 0.75, 0.25 and 0 for the left one.
    row = [0, 64, 128, 255]
    left = (0.75 * row[0] + 0.75 * row[1] + 0.25 * row[2]) / 1.75
    right = (0.25 * row[1] + 0.75 * row[2] + 0.75 * row[3]) / 1.75
    pixels = paper((1, 2))(gray([row]), "row")
    assert pixels.shape == (3, 1, 2)
    expected = [(round(value) / 255 - 0.5) / 0.5 for value in (left, right)]
    for channel in pixels:
        assert channel[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_transform_of_the_paper_does_not_crop() -> None:
    # Black but for a white frame on the left and right: a crop to the square in the middle would lose it.
    picture = np.zeros((8, 32, 3), np.uint8)
    picture[:, :8] = picture[:, 24:] = 255
    pixels = paper((8, 8))(Image.fromarray(picture), "frame")
    assert pixels.shape == (3, 8, 8)
    assert bool((pixels[:, :, 0] == 1).all())
    assert bool((pixels[:, :, 7] == 1).all())
    assert bool((pixels[:, :, 3:5] == -1).all())


def test_the_transform_of_the_paper_rounds_to_8_bits() -> None:
    pixels = paper((8, 8))(photo(19, 23), "photo")
    levels = (pixels * 0.5 + 0.5) * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)


def test_the_transform_of_the_paper_takes_the_size_of_the_model() -> None:
    lens = classlens.load(
        "vit_tiny_patch16_224", pretrained=False, transform="paper", **{**SMALL, "img_size": (48, 32)}
    )
    assert lens.preprocessing(photo(100, 70), "photo").shape == (3, 48, 32)


def test_miil_keeps_its_own_transform_as_in_the_reference() -> None:
    lens = classlens.load("vit_base_patch16_224_miil", pretrained=False, transform="paper", **SMALL)
    # MIIL: mean 0, std 1.
    pixels = lens.preprocessing(Image.new("RGB", (40, 40), (51, 102, 255)), "color")
    torch.testing.assert_close(pixels[:, 0, 0], torch.tensor([0.2, 0.4, 1.0]))


def test_a_model_of_timm_comes_with_its_own_transform() -> None:
    lens = classlens.load("vit_tiny_patch16_224", pretrained=False, **SMALL)
    config = timm.get_pretrained_cfg("vit_tiny_patch16_224")
    assert lens.preprocessing.mean == pytest.approx(config.mean)
    assert lens.preprocessing.std == pytest.approx(config.std)
    # crop_pct 0.9: the shorter side to floor(32 / 0.9) = 35, then the central 32: of 70 columns resized from 140, the
    # crop holds columns 19 to 50, so that the outer quarters of the picture are gone and its middle half is there.
    assert config.crop_pct == 0.9
    picture = np.zeros((70, 140, 3), np.uint8)
    picture[:, :30] = picture[:, 110:] = 255
    pixels = lens.preprocessing(Image.fromarray(picture), "outside")
    assert pixels.shape == (3, 32, 32)
    assert bool((pixels == -1).all()), "what lies outside of the crop does not come in"
    picture = np.zeros((70, 140, 3), np.uint8)
    picture[:, 45:95] = 255
    assert float((lens.preprocessing(Image.fromarray(picture), "inside") == 1).float().mean()) > 0.6


def test_a_function_of_the_user() -> None:
    def half(image: Image.Image) -> Tensor:
        return torch.full((3, 16, 16), image.width / image.height)

    lens = classlens.load(
        VisionTransformer(img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=3), transform=half
    )
    assert bool((lens.preprocessing(Image.new("RGB", (20, 40)), "tall") == 0.5).all())
    assert lens.preprocessing.mean is None


def test_a_function_of_the_user_goes_before_the_models_own() -> None:
    lens = classlens.load("builtin:cifar10", transform=lambda image: torch.ones(3, 32, 32))
    assert bool((lens.preprocessing(Image.new("RGB", (40, 40)), "any") == 1).all())


WRONG: dict[str, tuple[Callable[[Image.Image], Any], str]] = {
    "an array": (np.asarray, "ndarray"),
    "nothing": (lambda image: None, "NoneType"),
    "a picture": (lambda image: image, "Image"),
    "two dimensions": (lambda image: torch.zeros(32, 32), "[32, 32]"),
    "a batch": (lambda image: torch.zeros(1, 3, 32, 32), "[1, 3, 32, 32]"),
    "whole numbers": (transforms.PILToTensor(), "uint8"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_function_that_returns_something_else(kind: str) -> None:
    function, named = WRONG[kind]
    with pytest.raises(ClasslensError, match="expected a tensor") as caught:
        of_user(function)(Image.new("RGB", (32, 32)), "cat.png")
    assert "'cat.png'" in str(caught.value)
    assert named in str(caught.value)


@pytest.mark.parametrize("given", ["bicubic", "Paper", 3])
def test_a_transform_that_is_none(given: Any) -> None:
    with pytest.raises(ClasslensError, match='"paper"') as caught:
        of_user(given)
    assert repr(given) in str(caught.value)


def test_a_model_without_preprocessing_says_how_to_get_one() -> None:
    lens = classlens.load(VisionTransformer(img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=3))
    with pytest.raises(ClasslensError, match="transform=") as caught:
        lens.trace(Image.new("RGB", (16, 16)))
    assert '"paper"' in str(caught.value)
    lens.trace(torch.zeros(1, 3, 16, 16))  # pixels that are prepared need none


# And back


NORMALIZED: dict[str, Callable[[], Any]] = {
    "torchvision": lambda: transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.48, 0.45, 0.4), (0.23, 0.22, 0.27))]
    ),
    "torchvision v2": lambda: v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.48, 0.45, 0.4], [0.23, 0.22, 0.27]),
        ]
    ),
    "one for all channels": lambda: transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.25,))]),
}


@pytest.mark.parametrize("kind", NORMALIZED)
def test_a_picture_comes_back_from_its_pixels(kind: str) -> None:
    prepared = of_user(NORMALIZED[kind]())
    picture = photo(40, 24)
    back = prepared.picture(prepared(picture, "photo"))
    assert back.mode == "RGB"
    assert back.size == (40, 24)
    difference = np.asarray(back).astype(int) - np.asarray(picture).astype(int)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_pixels_of_any_precision_come_back(dtype: torch.dtype) -> None:
    prepared = paper((24, 40))
    picture = photo(40, 24)
    back = prepared.picture(prepared(picture, "photo").to(dtype))
    assert np.abs(np.asarray(back).astype(int) - np.asarray(picture).astype(int)).max() <= 1


def test_colors_out_of_range_are_cut_off() -> None:
    back = paper((1, 1)).picture(torch.tensor([-9.0, 0.0, 9.0]).view(3, 1, 1))
    assert back.getpixel((0, 0)) == (0, 128, 255)


def test_pixels_of_an_unknown_normalization_are_stretched() -> None:
    pixels = torch.tensor([[[-2.0, 0.0, 2.0]]]).expand(3, 1, 3)
    assert np.asarray(Preprocessing(None).picture(pixels))[0, :, 0].tolist() == [0, 128, 255]
    flat = torch.full((3, 2, 2), 5.0)
    assert np.asarray(Preprocessing(None).picture(flat)).max() == 0, "nothing to stretch, and no division by zero"


def test_one_channel_is_shown_in_gray() -> None:
    back = np.asarray(Preprocessing(None).picture(torch.tensor([[[0.0, 1.0]]])))
    assert back.tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_what_the_builtin_model_sees_is_the_middle_of_the_photo() -> None:
    # 96 × 64 is resized to 48 × 32, and 8 columns fall on each side: the middle 32 × 32 is left.
    picture = photo(96, 64)
    lens = classlens.load("builtin:cifar10")
    seen = lens.preprocessing.picture(lens.preprocessing(picture, "photo"))
    middle = picture.resize((48, 32), Image.Resampling.BICUBIC).crop((8, 0, 40, 32))
    assert np.abs(np.asarray(seen).astype(int) - np.asarray(middle).astype(int)).max() <= 1
