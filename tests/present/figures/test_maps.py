"""Overlays: where a map is strong its colour shows, and where it is nothing the picture stays."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from classlens.present.figures.maps import frames, overlay, side_by_side, upsampled

GREY = Image.new("RGB", (64, 48), (120, 120, 120))
CORNER = np.zeros((3, 4))
CORNER[0, 0] = 2.0


def colour(picture: Image.Image, row: int, column: int) -> list[int]:
    """In the middle of a token."""
    pixel = picture.getpixel((column * 16 + 8, row * 16 + 8))
    assert isinstance(pixel, tuple)
    return [int(one) for one in pixel]


def test_a_grid_keeps_its_values_at_the_centres_of_tokens() -> None:
    grid = np.arange(12.0).reshape(3, 4)
    large = upsampled(grid, (64, 48))
    assert large.shape == (48, 64)
    np.testing.assert_allclose(large[7:48:16, 7:64:16], grid, atol=0.5)
    # Half-way between two centres stands their mean.
    assert large[:8, 15:17].mean() == pytest.approx(0.5, abs=1e-6)
    assert large.min() >= 0
    assert large.max() <= 11


@pytest.mark.parametrize("sign", [1, -1])
def test_signed_maps_show_nothing_where_they_are_0(sign: int) -> None:
    picture = overlay(GREY, sign * CORNER, signed=True)
    assert picture.size == GREY.size
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
        assert overlay(GREY, np.zeros((3, 4)), signed=signed).size == GREY.size


def test_frames_share_one_scale() -> None:
    weak, strong = frames(GREY, np.stack([0.1 * CORNER, CORNER]), signed=True)
    assert colour(strong, 0, 0) == colour(overlay(GREY, CORNER, signed=True), 0, 0)
    apart = [max(pixel) - min(pixel) for pixel in (colour(weak, 0, 0), colour(strong, 0, 0))]
    assert apart[0] < apart[1] / 3


@pytest.mark.parametrize("count", [1, 9])
def test_methods_side_by_side(count: int) -> None:
    maps = {f"method_{number}": (CORNER * (number + 1), number % 2 == 0) for number in range(count)}
    figure = side_by_side(GREY, maps, "cat in photo.png", contour=True)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["image", *(f"method {number}" for number in range(count))]
    figure.canvas.draw()
