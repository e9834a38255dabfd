"""Figures of tables: what they draw is what the table says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from classlens import palette
from classlens.analysis.charts import Chart, Dots, Heat, Lines
from classlens.render.figures.charts import draw

MODELS = ("first", "second")


def table(models: tuple[str, ...] = MODELS, blocks: int = 4) -> pd.DataFrame:
    """Lines of two kinds of tokens, trained and random, whose values tell which they are."""
    rows = []
    for number, model in enumerate(models):
        for condition, shift in (("clean", 0.0), ("random_init", 0.05)):
            for tokens, base in (("cls", 0.5), ("image", 0.2)):
                for block in range(blocks):
                    value = base + shift + 0.01 * block + 0.1 * number
                    rows.append((model, condition, tokens, block, value, value - 0.02, value + 0.02, 0.1))
    return pd.DataFrame(rows, columns=["model", "condition", "tokens", "block", "value", "low", "high", "chance"])


def drawn(chart: Chart, data: pd.DataFrame) -> Figure:
    figure = draw(chart, data, "title")
    assert figure is not None
    return figure


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_visible()]


def lines(axes: Axes) -> list[tuple[str, str, list[float], list[float]]]:
    return [
        (to_hex(line.get_color()), str(line.get_linestyle()), list(line.get_xdata()), list(line.get_ydata()))  # type: ignore[arg-type]
        for line in axes.get_lines()
    ]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for one in figure.legends for text in one.get_texts()]


def test_a_panel_for_each_model_with_every_line_and_its_band() -> None:
    data = table()
    figure = drawn(Lines(value="share", dash="condition"), data)
    assert [axes.get_title(loc="left") for axes in panels(figure)] == ["first", "second"]
    for model, axes in zip(MODELS, panels(figure), strict=True):
        found, own = lines(axes), data[data["model"] == model]
        for condition, dash in (("clean", "-"), ("random_init", "--")):
            for tokens, color in (("cls", palette.CLS), ("image", palette.IMAGE_TOKENS)):
                rows = own[(own["condition"] == condition) & (own["tokens"] == tokens)]
                assert (color, dash, [0, 1, 2, 3], rows["value"].tolist()) in found
        assert (palette.MUTED, ":", [0, 1], [0.1, 0.1]) in found, "chance"
        bands = [np.asarray(one.get_paths()[0].vertices) for one in axes.collections]
        lowest = sorted(round(float(band[:, 1].min()), 6) for band in bands)
        assert lowest == sorted(round(low, 6) for low in own[own["block"] == 0]["low"])
        assert axes.get_xlabel() == "block"
        assert axes.get_ylim()[0] < 0 < 1 < axes.get_ylim()[1]
    assert panels(figure)[0].get_ylabel() == "share"
    assert legend(figure) == ["[CLS]", "image tokens", "trained model", "random twin", "chance: 1 in C classes"]


def test_rows_of_a_table_in_any_order_give_the_same_figure() -> None:
    chart, data = Lines(value="share", dash="condition"), table()
    shuffled = data.groupby("model", sort=False).sample(frac=1, random_state=1).sort_values("model", kind="stable")
    for one, other in zip(panels(drawn(chart, data)), panels(drawn(chart, shuffled)), strict=True):
        assert sorted(lines(one)) == sorted(lines(other))


def test_more_models_than_fit_side_by_side_go_on_below() -> None:
    figure = drawn(Lines(value="share", rows="tokens"), table(tuple(f"model {number}" for number in range(6)), 12))
    titles = [axes.get_title(loc="left") for axes in panels(figure)]
    assert titles == [f"{tokens}\nmodel {n}" for tokens in ("[CLS]", "image tokens") for n in range(6)]
    assert len(figure.axes) == 4 * 4
    assert figure.get_size_inches()[0] < 16


def test_only_what_is_asked_for_is_drawn_and_nothing_of_nothing() -> None:
    chart = Lines(value="share", where={"condition": ("clean",)})
    assert all(len(lines(axes)) == 3 for axes in panels(drawn(chart, table())))
    assert draw(Lines(value="share", where={"condition": ("self_only",)}), table(), "") is None
    assert draw(chart, table().iloc[:0], "") is None
    without_cls = table().query("not (model == 'first' and tokens == 'cls')")
    assert len(panels(drawn(Lines(value="share", rows="tokens"), without_cls))) == 3, "no empty axes"


def test_models_are_compared_on_one_axis_and_never_alone() -> None:
    chart = Lines(value="share", color="model", columns=None, where={"condition": ("clean",), "tokens": ("cls",)})
    (axes,) = panels(drawn(chart, table()))
    assert len(lines(axes)) == 3
    assert legend(drawn(chart, table()))[:2] == list(MODELS)
    assert draw(chart, table(("first",)), "") is None


@pytest.mark.parametrize(
    "values", [("previous", "attention", "mlp", "none"), ("cls", "image"), tuple("abcdefgh"), ("attn", "mlp", "x", "y")]
)
def test_every_series_has_a_color_of_its_own(values: tuple[str, ...]) -> None:
    data = pd.DataFrame({"model": "m", "source": list(values), "block": 0, "value": 0.5})
    (axes,) = panels(drawn(Lines(value="share", color="source"), data))
    colors = [color for color, *_ in lines(axes)]
    assert len(set(colors)) == len(values)
    if values != ("cls", "image"):
        assert not {palette.CLS, palette.IMAGE_TOKENS} & set(colors)


def test_dots_stand_where_their_values_are() -> None:
    data = pd.DataFrame(
        {
            "model": ["a", "a", "b", "b"],
            "condition": ["clean", "random_init"] * 2,
            "measure": "accuracy",
            "value": [0.8, 0.1, 0.7, 0.2],
            "low": [0.7, 0.05, 0.6, 0.1],
            "high": [0.9, 0.15, 0.8, 0.3],
        }
    )
    (axes,) = panels(drawn(Dots(value="share", labels=("model",), color="condition", rows="measure"), data))
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    places = [np.asarray(line.get_xydata(), dtype=float) for line in axes.get_lines()]
    points = {(float(x), round(float(y))) for each in places for x, y in each}
    assert points == {(0.8, 0), (0.1, 0), (0.7, 1), (0.2, 1)}
    spans = {tuple(segment[:, 0]) for one in axes.collections for segment in one.get_segments()}  # type: ignore[attr-defined]
    assert spans == set(zip(data["low"], data["high"], strict=True))


@pytest.mark.parametrize("classes", [3, 100])
def test_a_heat_map_shows_classes_by_their_last_block(classes: int) -> None:
    values: Any = np.random.default_rng(0).random((classes, 2))
    rows = [("m", f"class {c}", b, values[c, b]) for c in range(classes) for b in range(2)]
    data = pd.DataFrame(rows, columns=["model", "class_name", "block", "value"])
    axes = panels(drawn(Heat(value="rate"), data))[0]
    order = np.argsort(-values[:, 1])
    shown = order if classes <= 30 else np.concatenate([order[:15], order[-15:]])
    np.testing.assert_array_equal(np.asarray(axes.images[0].get_array()), values[shown])
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"class {number}" for number in shown]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1"]


@pytest.mark.parametrize("length", [3, 20, 40, 75])
@pytest.mark.parametrize("count", [2, 4, 7])
def test_a_legend_is_no_wider_than_its_figure(count: int, length: int) -> None:
    names = tuple(f"{number} {'series of a long name ' * 4}"[:length] for number in range(count))
    figure = drawn(Lines(value="share", color="model", columns=None, where={"tokens": ("cls",)}), table(names))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (one,) = figure.legends
    assert one.get_window_extent(canvas.get_renderer()).width <= figure.bbox.width
    columns = {round(text.get_window_extent(canvas.get_renderer()).x0) for text in one.get_texts()}
    assert len(columns) > 1 or length > 20, "short names stand side by side"


def test_names_that_are_hostile_to_figures() -> None:
    data = table(("a $\\frac{b}$ model with a name that does not end for a long while yet", "line\nbreak"))
    figure = drawn(Lines(value="share"), data)
    figure.canvas.draw()
    assert all(len(axes.get_title(loc="left")) <= 40 for axes in panels(figure))
