from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from classlens import palette
from classlens.errors import ClasslensError
from classlens.render.figures import inspection as figures
from classlens.render.html.report import write_report
from tests.render.records import Sizes, make_picture, make_pictures, make_record

SMALL = Sizes()
REGISTERS = Sizes(blocks=3, heads=2, prefix=("cls", "reg0", "reg1"), grid=(3, 5), input_size=(24, 40), seed=3)
NO_CLS = Sizes(blocks=10, heads=2, prefix=(), grid=(4, 4), input_size=(224, 224), seed=4)
ALL = pytest.mark.parametrize("sizes", [SMALL, REGISTERS, NO_CLS], ids=["small", "registers", "no cls"])


def _lines(figure: Figure) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in figure.axes[0].get_lines()}


def _y(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_ydata())]


def _titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def _layers(axes: Axes) -> list[Any]:
    return [np.asarray(layer.get_array()) for layer in axes.get_images()]


@ALL
def test_evolution_draws_share_mean_and_cls_by_block(sizes: Sizes) -> None:
    record = make_record(sizes)
    image, classes = record["images"][0], len(sizes.classes)
    figure = figures.evolution(image, record["model"])
    lines = _lines(figure)

    ranks = image["tokens"]["resid_post"]["rank"]
    first = len(sizes.prefix)
    share = lines["image tokens: share with the class on top"]
    np.testing.assert_array_equal(share.get_xdata(), range(sizes.blocks))
    np.testing.assert_allclose(_y(share), [np.mean([rank == 0 for rank in row[first:]]) for row in ranks])
    mean = lines["image tokens: mean identifiability"]
    np.testing.assert_allclose(_y(mean), [np.mean([1 - rank / classes for rank in row[first:]]) for row in ranks])
    assert ("[CLS]: identifiability" in lines) == ("cls" in sizes.prefix)
    if "cls" in sizes.prefix:
        np.testing.assert_allclose(_y(lines["[CLS]: identifiability"]), [1 - row[0] / classes for row in ranks])


def test_evolution_marks_chance_and_keeps_the_two_colors(tmp_path: Path) -> None:
    sizes = Sizes(classes=[f"class {i}" for i in range(25)])
    record = make_record(sizes)
    figure = figures.evolution(record["images"][0], record["model"])
    lines = _lines(figure)
    assert _y(lines["chance: 1 token in 25 on top"]) == [0.04, 0.04]
    assert to_hex(lines["[CLS]: identifiability"].get_color()) == palette.CLS
    of_images = {to_hex(lines[name].get_color()) for name in lines if name.startswith("image tokens")}
    assert of_images == {palette.IMAGE_TOKENS}
    # The same two colors are on the page.
    write_report(record, make_pictures(sizes), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"--cls: {palette.CLS}; --image: {palette.IMAGE_TOKENS};" in page


@ALL
def test_tokens_draws_every_block_over_the_picture(sizes: Sizes) -> None:
    record = make_record(sizes)
    image, picture = record["images"][0], make_picture(sizes)
    figure = figures.tokens(image, record["model"], picture)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert _titles(figure) == [f"block {number}" for number in range(sizes.blocks)]
    for axes, ranks in zip(panels, image["tokens"]["resid_post"]["rank"], strict=True):
        grid = np.array(ranks[len(sizes.prefix) :]).reshape(sizes.grid)
        under, over = _layers(axes)
        assert under.shape == sizes.input_size
        np.testing.assert_allclose(over, 1 - grid / len(sizes.classes))
        for layer in axes.get_images():
            assert tuple(layer.get_extent()) == (0, picture.width, picture.height, 0)
        # A dot in the middle of each token with the class on top, and nowhere else.
        (dots,) = axes.get_lines()
        token = np.array(sizes.input_size) / sizes.grid
        rows = np.floor(np.asarray(dots.get_ydata()) / token[0]).astype(int)
        columns = np.floor(np.asarray(dots.get_xdata()) / token[1]).astype(int)
        assert sorted(zip(rows, columns, strict=True)) == sorted(zip(*np.nonzero(grid == 0), strict=True))
    assert panels[0].get_images()[1].get_clim() == (0, 1)


@ALL
def test_explanation_draws_the_sum_and_then_every_block(sizes: Sizes) -> None:
    record = make_record(sizes)
    image = record["images"][0]
    figure = figures.explanation(image, record["model"], make_picture(sizes))
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert _titles(figure) == ["sum of all blocks", *(f"block {number}" for number in range(sizes.blocks))]
    values = image["explanations"]["log_odds"]["values"]
    tokens = range(sizes.grid[0] * sizes.grid[1])
    by_block = [[sum(head[token] for head in block) for token in tokens] for block in values]
    total = [sum(block[token] for block in by_block) for token in tokens]
    for axes, expected in zip(panels, [total, *by_block], strict=True):
        np.testing.assert_allclose(_layers(axes)[1].ravel(), expected, atol=1e-9)
    limits = [axes.get_images()[1].get_clim() for axes in panels]
    largest = max(abs(value) for block in by_block for value in block)
    assert limits[0] == pytest.approx((-max(map(abs, total)), max(map(abs, total))))
    assert limits[1] == pytest.approx((-largest, largest))
    assert set(limits[1:]) == {limits[1]}


def test_explanation_of_nothing_but_zeros_can_be_drawn() -> None:
    record = make_record(REGISTERS)
    image = record["images"][0]
    image["explanations"]["log_odds"]["values"] = np.zeros_like(image["explanations"]["log_odds"]["values"]).tolist()
    figure = figures.explanation(image, record["model"], make_picture(REGISTERS))
    assert figure.axes[0].get_images()[1].get_clim() == (-1, 1)


@ALL
def test_attribution_bars_are_the_parts_of_the_logit(sizes: Sizes) -> None:
    image = make_record(sizes)["images"][0]
    (axes,) = figures.attribution(image).axes
    found = image["attribution"]
    expected = {"embeddings": found["embed"], "biases": found["bias"]}
    for block in range(sizes.blocks):
        expected[f"block {block} attention"] = sum(found["attention"][block])
        expected[f"block {block} MLP"] = found["mlp"][block]
    names = [label.get_text() for label in axes.get_yticklabels()]
    bars = dict(zip(names, axes.patches, strict=True))
    assert set(bars) == set(expected)
    assert names[:3] == ["embeddings", "block 0 attention", "block 0 MLP"]
    for name, value in expected.items():
        width = bars[name].get_width()  # type: ignore[attr-defined]
        assert width == pytest.approx(value), name
        assert to_hex(bars[name].get_facecolor()) == (palette.SUPPORTS if value >= 0 else palette.OPPOSES), name
    assert sum(bar.get_width() for bar in bars.values()) == pytest.approx(found["logit"])  # type: ignore[attr-defined]
    assert f"{found['logit']:.2f}" in axes.get_xlabel()


@pytest.mark.parametrize(("size", "how"), [(32, "nearest"), (224, "antialiased")])
def test_few_pixels_stay_squares(size: int, how: str) -> None:
    sizes = Sizes(blocks=2, grid=(2, 2), input_size=(size, size))
    record = make_record(sizes)
    figure = figures.tokens(record["images"][0], record["model"], make_picture(sizes))
    assert figure.axes[0].get_images()[0].get_interpolation() == how


def test_save_figures_writes_four_files_an_image(tmp_path: Path) -> None:
    sizes = Sizes(blocks=2, heads=2, grid=(2, 3), input_size=(16, 24), images=("a.png", "b.png"))
    paths = figures.save_figures(make_record(sizes), make_pictures(sizes), tmp_path / "new" / "folder")
    kinds = ("evolution", "tokens", "explanation", "attribution")
    assert [path.name for path in paths] == [f"{nn}-{kind}.png" for nn in ("01", "02") for kind in kinds]
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(path.name for path in paths)
    for path in paths:
        with Image.open(path) as image:
            assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
            assert np.asarray(image.convert("L")).std() > 5


@pytest.mark.parametrize("name", ["$\\frac{$ </script>&amp;", "line\nbreak\x00 猫 \udcff.png", "x" * 300])
def test_names_are_drawn_as_they_are(name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    sizes = Sizes(blocks=2, heads=1, grid=(2, 2), images=(name,), classes=[name, "b", "c", "d"], target=0)
    assert len(figures.save_figures(make_record(sizes), make_pictures(sizes), tmp_path)) == 4
    assert not [str(warning.message) for warning in recwarn]


def test_errors_name_the_input(tmp_path: Path) -> None:
    record = make_record(SMALL)
    with pytest.raises(ClasslensError, match=r"^2 pictures were given for 1 images"):
        figures.save_figures(record, [make_picture(SMALL)] * 2, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ClasslensError, match=r"^figures cannot be written to .*file' \(.*\): give another folder$"):
        figures.save_figures(record, [make_picture(SMALL)], tmp_path / "file")


def test_no_global_state_of_pyplot_is_used() -> None:
    code = "import sys, classlens.render.figures.inspection; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
