"""Figures of causal sweeps hold the effects of the record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from classlens import palette
from classlens.render.figures import sweep as figures
from tests.refusals import refused
from tests.render.sweeps import SweepSizes, make_pairs, make_sweep

HEADS, SUBLAYERS = SweepSizes(), SweepSizes(over="sublayers", direction="noise")
TOKENS = SweepSizes(over="tokens", blocks=(1, 4, 5), prefix=("cls", "reg0"), cls_factor=20)
MANY = SweepSizes(over="tokens", grid=(14, 14))
UNITS = SweepSizes(over="units", count=64)


def layers(axes: Axes) -> list[Any]:
    return [np.asarray(layer.get_array()) for layer in axes.get_images()]


@pytest.mark.parametrize("sizes", [HEADS, SUBLAYERS, TOKENS, MANY], ids=["heads", "sublayers", "tokens", "many tokens"])
def test_heatmaps_hold_every_effect(sizes: SweepSizes) -> None:
    record = make_sweep(sizes)
    effects = np.array(record["images"][0]["effect"])
    figure = figures.effects(record, record["images"][0])
    axes = figure.axes[0]
    (layer,) = layers(axes)
    np.testing.assert_array_equal(layer, effects)
    assert axes.get_images()[0].get_clim() == (-np.abs(effects).max(), np.abs(effects).max())
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [str(block) for block in sizes.blocks]
    assert figure.axes[1].get_ylabel() == "effect"
    written = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    if effects.shape[1] > 32:
        assert not written
        labels = [tick.get_text() for tick in axes.get_xticklabels()]
        assert labels == ["[CLS]", *(f"row {row}" for row in range(1, 14))]
        assert axes.get_xticks().tolist() == [0, *(1 + 14 * row for row in range(1, 14))]
        return
    for place, effect in np.ndenumerate(effects):
        assert float(written[place].replace("−", "-")) == pytest.approx(100 * effect, abs=0.5 + 1e-9)


def test_colors_diverge_from_zero() -> None:
    record = make_sweep(HEADS)
    image = record["images"][0]
    image["effect"][0] = [-2.0, 0.0, 2.0, None]
    drawn = figures.effects(record, image).axes[0].get_images()[0]
    row = np.round(255 * drawn.to_rgba(np.ma.masked_invalid([[-2.0, 0.0, 2.0, np.nan]]))[0, :, :3])
    colors = ["#" + "".join(f"{int(part):02x}" for part in color) for color in row]
    assert colors == [palette.OPPOSES, colors[1], palette.SUPPORTS, "#d5dbe1"]
    assert row[1].min() > 235, "zero is pale"


def test_tokens_lie_over_the_clean_picture() -> None:
    record, (picture, _) = make_sweep(TOKENS), make_pairs(TOKENS)[0]
    effects = np.array(record["images"][0]["effect"])
    figure = figures.tokens(record, record["images"][0], picture)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["block 1", "block 4", "block 5"]
    largest = np.abs(effects[:, 2:]).max()
    for axes, row in zip(panels, effects, strict=True):
        photo, tokens = layers(axes)
        np.testing.assert_allclose(photo, np.asarray(picture.convert("L")) / 255 * 0.72 + 0.2)
        np.testing.assert_array_equal(tokens, row[2:].reshape(3, 5))
        drawn = axes.get_images()[1]
        assert drawn.get_clim() == (-largest, largest), "the scale of image tokens"
        assert list(drawn.get_extent()) == [0, 40, 24, 0]
        for text, name, value in zip(axes.texts, ("[CLS]", "[REG0]"), row, strict=False):
            assert text.get_text().startswith(f"{name} ")
            number = float(text.get_text().split()[1].rstrip("%").replace("−", "-"))
            assert number == pytest.approx(100 * value, abs=0.5 + 1e-9)


@pytest.mark.parametrize("sizes", [HEADS, TOKENS, UNITS], ids=["heads", "tokens", "units"])
def test_titles_say_that_numbers_are_estimates(sizes: SweepSizes) -> None:
    record, estimate = make_sweep(sizes), make_sweep(replace(sizes, steps=5, direction="noise"))
    picture = make_pairs(sizes)[0][0]
    for drawn, title, label in (
        (record, "Effect on the log odds of cat\ncat.png, dog.png", "effect"),
        (
            estimate,
            "Estimate (attribution patching, 5 steps)\nof the effect (noise) on the log odds of cat\ncat.png, dog.png",
            "estimated effect",
        ),
    ):
        image = drawn["images"][0]
        all_figures = [figures.largest_units(drawn, image) if sizes is UNITS else figures.effects(drawn, image)]
        all_figures += [figures.tokens(drawn, image, picture)] if sizes is TOKENS else []
        for figure in all_figures:
            assert figure.get_suptitle() == title
            labels = {axes.get_ylabel() for axes in figure.axes} | {axes.get_xlabel() for axes in figure.axes}
            assert labels & {label, f"{label} of image tokens"}


def test_bars_are_the_largest_units() -> None:
    record = make_sweep(UNITS)
    axes = figures.largest_units(record, record["images"][0]).axes[0]
    flat = np.array(record["images"][0]["effect"]).ravel()
    expected = flat[np.argsort(-np.abs(flat))[:30]]
    np.testing.assert_array_equal([bar.get_width() for bar in axes.patches], expected)  # type: ignore[attr-defined]
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    first = int(np.argmax(np.abs(flat)))
    assert names[0] == f"unit {first // 64}.{first % 64}"
    assert axes.yaxis_inverted(), "the largest on top"


@pytest.mark.parametrize("over", ["heads", "tokens", "units"])
def test_files_of_pairs_with_and_without_effects(over: str, tmp_path: Path) -> None:
    sizes = SweepSizes(over=over, images=("a$b.png", "日本\n.png"), equal=(1,), target="<b>\x1b[31m$x$")
    record = make_sweep(sizes)
    cleans = [clean for clean, _ in make_pairs(sizes)]
    paths = figures.save_figures(record, cleans, tmp_path / "new")
    kinds = ("effects", "tokens") if over == "tokens" else ("effects",)
    assert [path.name for path in paths] == [f"{number}-{kind}.png" for number in ("01", "02") for kind in kinds]
    for path in paths:
        with Image.open(path) as drawn:
            assert min(drawn.size) > 150
    title = figures.effects(record, record["images"][1]).get_suptitle()
    assert title.startswith("Clean and corrupt image have the same log odds of <b> [31m$x$, ")
    refused(lambda: figures.save_figures(record, cleans[:1], tmp_path / "x"), "1 pictures were given for 2 images")
    assert not (tmp_path / "x").exists()
