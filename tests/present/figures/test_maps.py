"""Overlays: where a map is strong its colour shows, and where it is nothing the picture stays."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from classlens.models.geometry import Box, Window
from classlens.present.figures.maps import Canvas, frames, overlay, side_by_side, upsampled

GREY = Canvas(Image.new("RGB", (64, 48), (120, 120, 120)))
CORNER = np.zeros((3, 4))
CORNER[0, 0] = 2.0


def colour(picture: Image.Image, row: int, column: int) -> list[int]:
    """In the middle of a token."""
    pixel = picture.getpixel((column * 16 + 8, row * 16 + 8))
    assert isinstance(pixel, tuple)
    return [int(one) for one in pixel]


def test_a_grid_keeps_its_values_at_the_centres_of_tokens() -> None:
    grid = np.arange(12.0).reshape(3, 4)
    large = upsampled(grid, GREY)
    assert large.shape == (48, 64)
    np.testing.assert_allclose(large[7:48:16, 7:64:16], grid, atol=0.5)
    # Half-way between two centres stands their mean.
    assert large[:8, 15:17].mean() == pytest.approx(0.5, abs=1e-6)
    assert large.min() >= 0
    assert large.max() <= 11


@pytest.mark.parametrize("sign", [1, -1])
def test_signed_maps_show_nothing_where_they_are_0(sign: int) -> None:
    picture = overlay(GREY, sign * CORNER, signed=True)
    assert picture.size == GREY.picture.size
    red, _, blue = colour(picture, 0, 0)
    assert (red > blue + 60) if sign > 0 else (blue > red + 60), "orange for, blue against"
    r, g, b = colour(picture, 2, 3)
    assert r == g == b, "the picture itself, in grey"


def test_unsigned_maps_are_darkest_at_0_and_brightest_at_their_largest() -> None:
    picture = overlay(GREY, CORNER, signed=False)
    assert sum(colour(picture, 0, 0)) > 300
    assert sum(colour(picture, 2, 3)) < 150
    assert overlay(GREY, CORNER, signed=False, largest=20.0) != picture, "another scale"


def test_a_map_of_zeros_can_be_shown() -> None:
    for signed in (True, False):
        assert overlay(GREY, np.zeros((3, 4)), signed=signed).size == GREY.picture.size


def test_frames_share_one_scale() -> None:
    weak, strong = frames(GREY, np.stack([0.1 * CORNER, CORNER]), signed=True)
    assert colour(strong, 0, 0) == colour(overlay(GREY, CORNER, signed=True), 0, 0)
    apart = [max(pixel) - min(pixel) for pixel in (colour(weak, 0, 0), colour(strong, 0, 0))]
    assert apart[0] < apart[1] / 3


@pytest.mark.parametrize("count", [1, 9])
def test_methods_side_by_side(count: int) -> None:
    maps = {f"method {number}": (CORNER * (number + 1), number % 2 == 0) for number in range(count)}
    figure = side_by_side(GREY, maps, "cat in photo.png", contour=True)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["image", *(f"method {number}" for number in range(count))]
    figure.canvas.draw()


def test_a_map_lies_where_the_model_saw_and_what_it_did_not_see_has_no_colour() -> None:
    photo = Image.new("RGB", (130, 90), (200, 100, 50))
    # The input begins above the photo, as a crop that padded it.
    canvas = Canvas(photo, Window(Box(40, -10, 104, 38), Box(40, 0, 104, 38)))
    grid = np.arange(8.0, 20.0).reshape(3, 4)
    large = upsampled(grid, canvas)
    assert large.shape == (90, 130)
    # Centres of tokens: rows -2, 14, 30, columns 48, 64, 80, 96; between pixels, hence the mean of four.
    for row, y in enumerate((-2, 14, 30)):
        for column, x in enumerate((48, 64, 80, 96)):
            if y > 0:
                around = large[y - 1 : y + 1, x - 1 : x + 1].mean()
                assert around == pytest.approx(grid[row, column], abs=0.15), "but for the kink at a centre"
    for signed in (True, False):
        pixels = np.asarray(overlay(canvas, grid, signed=signed)).astype(int)
        coloured = np.ptp(pixels, axis=2) > 8
        assert coloured[38:].sum() == coloured[:, :40].sum() == coloured[:, 104:].sum() == 0
        assert coloured[:38, 40:104].all()


def test_a_smaller_canvas_keeps_its_window_in_place() -> None:
    canvas = Canvas(Image.new("RGB", (400, 200)), Window(Box(100, -20, 300, 180), Box(100, 0, 300, 180)))
    small = canvas.sized(100, Image.Resampling.BILINEAR)
    assert small.picture.size == (100, 50)
    assert small.frame == Box(25, -5, 75, 45)
    assert not small.unseen[:45, 25:75].any()
    assert small.unseen.sum() == 100 * 50 - 45 * 50


def test_a_long_title_is_whole() -> None:
    title = "golden retriever rather than Labrador retriever in photo-of-the-dog.jpg"
    figure = side_by_side(GREY, {"class gradient": (CORNER, True)}, title)
    assert figure.get_suptitle().split() == title.split()
    assert "\n" in figure.get_suptitle()
