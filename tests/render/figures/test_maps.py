"""Overlays: where a map is strong its color shows, and where it is nothing the picture stays."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from classlens.models.geometry import Box, Window
from classlens.render.figures.blending import color_scale
from classlens.render.figures.maps import Canvas, frames, overlay, side_by_side, upsampled

GREY = Canvas(Image.new("RGB", (64, 48), (120, 120, 120)))
CORNER = np.zeros((3, 4))
CORNER[0, 0] = 2.0


def color(picture: Image.Image, row: int, column: int) -> list[int]:
    """In the middle of a token."""
    pixel = picture.getpixel((column * 16 + 8, row * 16 + 8))
    assert isinstance(pixel, tuple)
    return [int(one) for one in pixel]


def test_a_grid_keeps_its_values_at_the_centres_of_tokens() -> None:
    grid = np.arange(12.0).reshape(3, 4)
    large = upsampled(grid, GREY)
    assert large.shape == (48, 64)
    np.testing.assert_allclose(large[7:48:16, 7:64:16], grid, atol=0.5)
    # Half-way between two centers stands their mean.
    assert large[:8, 15:17].mean() == pytest.approx(0.5, abs=1e-6)
    assert large.min() >= 0
    assert large.max() <= 11


@pytest.mark.parametrize("sign", [1, -1])
def test_signed_maps_show_nothing_where_they_are_0(sign: int) -> None:
    picture = overlay(GREY, sign * CORNER, signed=True)
    assert picture.size == GREY.picture.size
    red, _, blue = color(picture, 0, 0)
    assert (red > blue + 60) if sign > 0 else (blue > red + 60), "orange for, blue against"
    r, g, b = color(picture, 2, 3)
    assert r == g == b, "the picture itself, in gray"


def test_weak_values_have_the_hue_of_strong_ones_and_no_haze() -> None:
    """A share ``s`` of the largest value moves the picture's gray by ``s`` of the way to the color of its sign."""
    base = color(overlay(GREY, 0 * CORNER, signed=True), 0, 0)
    for sign, end in ((1, (0xD5, 0x5E, 0x00)), (-1, (0x00, 0x72, 0xB2))):
        for share in (0.1, 0.25, 0.5, 1.0):
            grid = np.full((3, 4), sign * share)
            found = color(overlay(GREY, grid, signed=True, largest=1.0), 1, 1)
            expected = [b + 0.72 * share * (e - b) for b, e in zip(base, end, strict=True)]
            assert found == pytest.approx(expected, abs=1), "rounded twice"


@pytest.mark.parametrize("signed", [True, False])
def test_the_bar_has_the_colors_of_the_map(signed: bool) -> None:
    """Those over middle gray, for values from the one end to the other."""
    bar = color_scale(signed, 3.0)
    gray = Canvas(Image.new("L", (16, 16), 128).convert("RGB"))
    for value in (-3.0, -1.0, 0.0, 0.5, 3.0) if signed else (0.0, 0.5, 3.0):
        shown = overlay(gray, np.full((1, 1), value), signed=signed, largest=3.0).getpixel((8, 8))
        # 256 steps of the bar, and half of 255 is no whole number.
        assert 255 * bar.to_rgba(np.array([value]))[0, :3] == pytest.approx(shown, abs=3)
    assert bar.get_clim() == ((-3.0 if signed else 0.0), 3.0)


def ramp(low: float, high: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.tile(np.linspace(low, high, 64), (2, 1))


def lines_of(grid: np.ndarray[tuple[int, ...], np.dtype[np.float64]], signed: bool) -> list[tuple[int, float]]:
    """Columns of the overlay that contours change, each with its share of changed rows."""
    canvas = Canvas(Image.new("RGB", (640, 480), (90, 90, 90)))
    bare, lined = (np.asarray(overlay(canvas, grid, signed=signed, contour=c)).astype(int) for c in (False, True))
    changed = np.abs(lined - bare).max(axis=2) > 60
    assert changed.mean() < 0.05, "the photo is not hidden"
    return [(column, float(share)) for column, share in enumerate(changed.mean(axis=0)) if share > 0.2]


def test_contours_stand_on_overlays_and_are_dashed_below_0() -> None:
    # 64 columns of tokens, 10 pixels each, their centers from 5 to 635.
    for signed, low, levels in ((False, 0.0, (0.25, 0.5, 0.75)), (True, -1.0, (-0.75, -0.5, -0.25, 0.25, 0.5, 0.75))):
        found = lines_of(ramp(low, 1.0), signed)
        places = [5 + 630 * (level - low) / (1 - low) for level in levels]
        for place, level in zip(places, levels, strict=True):
            share = max(share for column, share in found if abs(column - place) < 3)
            assert share > 0.95 if level > 0 else 0.4 < share < 0.9
        assert all(min(abs(column - place) for place in places) < 3 for column, _ in found), "and nowhere else"
    flat = np.full((3, 4), 2.0)
    assert overlay(GREY, flat, signed=False, contour=True) == overlay(GREY, flat, signed=False)


def test_frames_have_contours_too() -> None:
    canvas = Canvas(Image.new("RGB", (640, 480), (90, 90, 90)))
    grids = np.stack([ramp(0, 0.4), ramp(0, 1)])
    for grid, frame in zip(grids, frames(canvas, grids, [0, 1], signed=False, contour=True), strict=True):
        wanted = overlay(canvas, grid, signed=False, largest=1.0, contour=True)
        np.testing.assert_array_equal(np.asarray(frame)[:480], np.asarray(wanted))


def test_unsigned_maps_are_darkest_at_0_and_brightest_at_their_largest() -> None:
    picture = overlay(GREY, CORNER, signed=False)
    assert sum(color(picture, 0, 0)) > 300
    assert sum(color(picture, 2, 3)) < 150
    assert overlay(GREY, CORNER, signed=False, largest=20.0) != picture, "another scale"


def test_a_map_of_zeros_can_be_shown() -> None:
    for signed in (True, False):
        assert overlay(GREY, np.zeros((3, 4)), signed=signed).size == GREY.picture.size


def test_frames_share_one_scale() -> None:
    weak, strong = (np.asarray(one) for one in frames(GREY, np.stack([0.1 * CORNER, CORNER]), [4, 5], signed=True))
    whole = np.asarray(overlay(GREY, CORNER, signed=True))
    # A narrow picture stands in the middle, so that what is below it can be read.
    assert weak.shape == strong.shape == (48 + 46, 300, 3)
    np.testing.assert_array_equal(strong[:48, 118:182], whole)
    np.testing.assert_array_equal(weak[:48, 118:182], overlay(GREY, 0.1 * CORNER, signed=True, largest=2.0))
    assert (np.delete(strong[:48], np.s_[118:182], axis=1) == 255).all()
    # The number of the block differs, and the scale is the same.
    assert (weak[48:, :120] != strong[48:, :120]).any()
    np.testing.assert_array_equal(weak[48:, 130:], strong[48:, 130:])
    assert (np.ptp(strong[48:, 130:].astype(int), axis=2) > 80).mean() > 0.05, "a bar in the map's colors"


@pytest.mark.parametrize("count", [1, 9])
def test_methods_side_by_side(count: int) -> None:
    maps = {f"method {number}": (CORNER * (number + 1), number % 2 == 0) for number in range(count)}
    figure = side_by_side(GREY, maps, "cat in photo.png", contour=True)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["image", *(f"method {number}" for number in range(count))]
    figure.canvas.draw()


def test_a_map_lies_where_the_model_saw_and_what_it_did_not_see_has_no_color() -> None:
    photo = Image.new("RGB", (130, 90), (200, 100, 50))
    # The input begins above the photo, as a crop that padded it.
    canvas = Canvas(photo, Window(Box(40, -10, 104, 38), Box(40, 0, 104, 38)))
    grid = np.arange(8.0, 20.0).reshape(3, 4)
    large = upsampled(grid, canvas)
    assert large.shape == (90, 130)
    # Centers of tokens: rows -2, 14, 30, columns 48, 64, 80, 96; between pixels, hence the mean of four.
    for row, y in enumerate((-2, 14, 30)):
        for column, x in enumerate((48, 64, 80, 96)):
            if y > 0:
                around = large[y - 1 : y + 1, x - 1 : x + 1].mean()
                assert around == pytest.approx(grid[row, column], abs=0.15), "but for the kink at a center"
    for signed in (True, False):
        pixels = np.asarray(overlay(canvas, grid, signed=signed)).astype(int)
        colored = np.ptp(pixels, axis=2) > 8
        assert colored[38:].sum() == colored[:, :40].sum() == colored[:, 104:].sum() == 0
        assert colored[:38, 40:104].all()


def test_a_smaller_canvas_keeps_its_window_in_place() -> None:
    canvas = Canvas(Image.new("RGB", (400, 200)), Window(Box(100, -20, 300, 180), Box(100, 0, 300, 180)))
    small = canvas.resized(100, Image.Resampling.BILINEAR)
    assert small.picture.size == (100, 50)
    assert small.frame == Box(25, -5, 75, 45)
    assert not small.unseen[:45, 25:75].any()
    assert small.unseen.sum() == 100 * 50 - 45 * 50


def test_a_long_title_is_whole() -> None:
    title = "golden retriever rather than Labrador retriever in photo-of-the-dog.jpg"
    figure = side_by_side(GREY, {"class gradient": (CORNER, True)}, title)
    assert figure.get_suptitle().split() == title.split()
    assert "\n" in figure.get_suptitle()
