"""What `Lens.trace` takes for images: all kinds of the same picture give the same pixels to the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import classlens
from classlens.errors import ClasslensError
from tests.zoo import randomize


@pytest.fixture(scope="module")
def lens() -> classlens.Lens:
    return classlens.load("builtin:cifar10")


def photo(width: int = 48, height: int = 40) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    planes = [5 * x, 6 * y, 127.5 * (1 + np.sin(x / 3 + y / 5))]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def logits(lens: classlens.Lens, images: Any, **options: Any) -> Tensor:
    """The model's own logits of whatever was given."""
    return torch.from_numpy(lens.trace(images, **options).model_logits.values)


def expected(lens: classlens.Lens, *pictures: Image.Image) -> Tensor:
    """The same from the module and its transform alone."""
    transform = lens.preprocessing.transform
    assert transform is not None
    with torch.no_grad():
        model_logits: Tensor = lens.view.module.eval()(torch.stack([transform(picture) for picture in pictures]))
    return model_logits


def test_a_path(lens: classlens.Lens, tmp_path: Path) -> None:
    photo().save(tmp_path / "cat.png")
    for path in (tmp_path / "cat.png", str(tmp_path / "cat.png")):
        torch.testing.assert_close(logits(lens, path), expected(lens, photo()))


def test_a_picture_of_pillow(lens: classlens.Lens) -> None:
    torch.testing.assert_close(logits(lens, photo()), expected(lens, photo()))


@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
def test_an_array(lens: classlens.Lens, kind: str) -> None:
    array = np.asarray(photo())
    given = array if kind == "uint8" else array.astype(kind) / 255
    torch.testing.assert_close(logits(lens, given), expected(lens, photo()))


def test_many_of_all_kinds_in_order(lens: classlens.Lens, tmp_path: Path) -> None:
    pictures = [photo(), photo(33, 60), photo(100, 40)]
    pictures[0].save(tmp_path / "cat.png")
    mixed: list[Any] = [tmp_path / "cat.png", pictures[1], np.asarray(pictures[2])]
    torch.testing.assert_close(logits(lens, mixed), expected(lens, *pictures))
    torch.testing.assert_close(logits(lens, tuple(mixed)), expected(lens, *pictures))

    def one_by_one() -> Iterator[Any]:
        yield from mixed

    torch.testing.assert_close(logits(lens, one_by_one()), expected(lens, *pictures))
    assert [str(name) for name in lens.trace(mixed).model_logits.image.values][1:] == ["image 1", "image 2"]


def test_preprocessed_pixels_are_not_touched(lens: classlens.Lens) -> None:
    pixels = 5 * torch.randn(3, 3, 32, 32)
    before = pixels.clone()
    with torch.no_grad():
        expected_logits = lens.view.module.eval()(pixels)
    torch.testing.assert_close(logits(lens, pixels), expected_logits)
    assert torch.equal(pixels, before)


def test_one_image_of_pixels(lens: classlens.Lens) -> None:
    pixels = torch.randn(3, 32, 32)
    trace = lens.trace(pixels)
    assert len(trace) == 1
    torch.testing.assert_close(torch.from_numpy(trace.model_logits.values), logits(lens, pixels[None]))
    assert [str(name) for name in lens.trace(torch.randn(2, 3, 32, 32)).model_logits.image.values] == [
        "image 0",
        "image 1",
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_pixels_of_another_precision_are_taken_to_the_models(lens: classlens.Lens, dtype: torch.dtype) -> None:
    pixels = torch.randn(1, 3, 32, 32).to(dtype)
    torch.testing.assert_close(logits(lens, pixels), logits(lens, pixels.float()))


def test_pixels_that_are_not_contiguous_or_want_gradients(lens: classlens.Lens) -> None:
    pixels = torch.randn(1, 3, 32, 32)
    turned = pixels.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    torch.testing.assert_close(logits(lens, turned), logits(lens, pixels))
    differentiable = pixels.clone().requires_grad_()
    torch.testing.assert_close(logits(lens, differentiable), logits(lens, pixels))
    assert differentiable.grad is None


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_batches_do_not_matter(lens: classlens.Lens, batch_size: int) -> None:
    pixels = torch.randn(5, 3, 32, 32)
    torch.testing.assert_close(logits(lens, pixels, batch_size=batch_size), logits(lens, pixels))


def test_what_the_model_saw_can_be_looked_at(lens: classlens.Lens) -> None:
    trace = lens.trace([photo(64, 64), photo(96, 64)])
    shown = np.asarray(trace.picture(1)).astype(int)
    middle = np.asarray(photo(96, 64).resize((48, 32), Image.Resampling.BICUBIC).crop((8, 0, 40, 32))).astype(int)
    assert np.abs(shown - middle).max() <= 1


# What is refused

ZEROS = torch.zeros(1, 3, 32, 32)


@pytest.mark.parametrize(
    ("images", "parts"),
    [
        (torch.zeros(0, 3, 32, 32), ["[0, 3, 32, 32]", "[image, 3, height, width]"]),
        (torch.zeros(3, 32), ["[3, 32]"]),
        (torch.zeros(32, 32, 3), ["[32, 32, 3]"]),
        (torch.zeros(1, 1, 32, 32), ["[1, 1, 32, 32]"]),
        (torch.zeros(1, 1, 3, 32, 32), ["[1, 1, 3, 32, 32]"]),
        (ZEROS.to(torch.uint8), ["torch.uint8", "preprocessed"]),
        (ZEROS.to(torch.complex64), ["torch.complex64"]),
        (torch.zeros(1, 3, 64, 48), ["64×48", "32×32", "'builtin:cifar10'"]),
        ([], ["no images"]),
        ([ZEROS], ["image 0", "Tensor"]),
        (None, ["images None cannot be used: give a path"]),
        (3, ["images 3 cannot be used"]),
        (b"cat.png", ["images b'cat.png' cannot be used"]),
        ([photo(), 3], ["image 1", "int"]),
        (np.zeros((3, 40, 50), np.uint8), ["[3, 40, 50]", "channels"]),
        (np.full((40, 40, 3), 2.0), ["0 to 1"]),
        (np.full((40, 40, 3), np.nan), ["0 to 1"]),
        (Image.new("RGB", (9, 7)), ["7×9", "8×8"]),
        ("missing.png", ["'missing.png'", "does not exist"]),
    ],
)
@pytest.mark.wrong_types
def test_what_is_no_image(lens: classlens.Lens, images: Any, parts: list[str]) -> None:
    with pytest.raises(ClasslensError) as caught:
        lens.trace(images)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_of_nothing(lens: classlens.Lens, batch_size: int) -> None:
    with pytest.raises(ClasslensError, match=f"batch_size {batch_size} cannot be used"):
        lens.trace(ZEROS, batch_size=batch_size)


def test_the_smallest_picture_has_a_pixel_a_token(lens: classlens.Lens) -> None:
    assert len(lens.trace(Image.new("RGB", (8, 8)))) == 1


def test_pictures_that_the_transform_leaves_at_several_sizes() -> None:
    def as_it_is(image: Image.Image) -> Tensor:
        return torch.zeros(3, image.height, image.width)

    any_size = VisionTransformer(img_size=32, patch_size=16, embed_dim=24, depth=2, num_heads=3, dynamic_img_size=True)
    randomize(any_size)
    lens = classlens.load(any_size, transform=as_it_is)
    with pytest.raises(ClasslensError, match="need one size") as caught:
        lens.trace([Image.new("RGB", (32, 32)), Image.new("RGB", (48, 32))])
    assert "'image 1'" in str(caught.value)
    assert "[3, 32, 48]" in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite(lens: classlens.Lens, value: float) -> None:
    pixels = torch.zeros(2, 3, 32, 32)
    pixels[1, 2, 3, 4] = value
    with pytest.raises(ClasslensError, match="not finite"):
        lens.trace(pixels)


# Models that take any size


@pytest.fixture(scope="module")
def any_size() -> classlens.Lens:
    model = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=3, num_classes=5, dynamic_img_size=True
    )
    randomize(model)
    return classlens.load(model)


def test_another_size_where_the_model_takes_any(any_size: classlens.Lens) -> None:
    trace = any_size.trace(torch.randn(1, 3, 24, 40))
    assert trace.recording.tokens.grid == (3, 5)
    # The tokens of the image are numbered by row and column of the grid, row by row.
    coords = trace.rank("resid_post", 0).isel(image=0, block=0)
    assert coords.row.values.tolist()[1:] == [row for row in range(3) for _ in range(5)]
    assert coords.column.values.tolist()[1:] == 3 * list(range(5))


def test_a_size_that_the_patches_do_not_divide(any_size: classlens.Lens) -> None:
    with pytest.raises(ClasslensError, match="20×24"):
        any_size.trace(torch.randn(1, 3, 20, 24))
