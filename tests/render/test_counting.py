"""Blocks, heads and units are counted from 0 wherever a person reads or types them, as the arrays count them.

One model with marks that tell its parts apart: whatever a page, figure, table or command shows under a number is what
the arrays hold under that number.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

import classlens
from classlens.analysis.charts import Heat, Lines
from classlens.cli import app
from classlens.render.figures import charts, inspection, maps
from classlens.render.html.report import write_report
from classlens.render.terminal.inspection import tables
from tests.data.pictures import picture
from tests.render.records import Sizes, make_picture, make_record

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZES = Sizes(blocks=4, heads=3)
BLOCKS, HEADS = ["0", "1", "2", "3"], ["0", "1", "2"]


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return make_record(SIZES)


def test_figures_of_an_inspection(record: dict[str, Any]) -> None:
    image, model, shown = record["images"][0], record["model"], make_picture(SIZES)
    assert _numbers(axes.get_title() for axes in inspection.tokens(image, model, shown).axes) == BLOCKS
    assert _numbers(axes.get_title() for axes in inspection.explanation(image, model, shown).axes) == BLOCKS
    (bars,) = inspection.attribution(image).axes
    assert _numbers(label.get_text() for label in bars.get_yticklabels()) == [
        block for block in BLOCKS for _ in range(2)
    ]
    (evolution,) = inspection.evolution(image, model).axes
    assert evolution.get_xticks().tolist() == [0, 1, 2, 3]
    values = np.asarray(evolution.get_lines()[0].get_xydata())
    np.testing.assert_allclose(values, [(row["block"], row["identifiable"]) for row in image["blocks"]])


def test_figures_of_an_analysis() -> None:
    table = pd.DataFrame(
        {"model": "m", "block": range(4), "tokens": "image", "name": "a", "value": [0.1, 0.2, 0.3, 0.4], "test": ""}
    )
    lines = charts.draw(Lines(value="share", columns="model"), table, "")
    assert lines is not None
    assert lines.axes[0].get_xticks().tolist() == [0, 1, 2, 3]
    points = np.asarray(lines.axes[0].get_lines()[0].get_xydata())
    np.testing.assert_allclose(points, list(enumerate(table["value"])))
    heat = charts.draw(Heat(value="share", y="name"), table, "")
    assert heat is not None
    assert [label.get_text() for label in heat.axes[0].get_xticklabels()] == BLOCKS


def test_animations(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    strip = maps._strip

    def noted(width: int, text: str, signed: bool, limit: float) -> Any:
        texts.append(text)
        return strip(width, text, signed, limit)

    monkeypatch.setattr(maps, "_strip", noted)
    list(maps.frames(maps.Canvas(make_picture(SIZES)), np.ones((4, 8, 8)), [0, 1, 2, 3], signed=True))
    assert texts == [f"block {block} of 0–3" for block in BLOCKS]


def test_the_terminal(record: dict[str, Any]) -> None:
    console = Console(width=140)
    with console.capture() as captured:
        for part in tables(record):
            console.print(part)
    assert re.findall(r"^│ +(\d+) │", captured.get(), re.MULTILINE) == BLOCKS
    largest = record["images"][0]["largest"]
    assert f"of block {largest['block']}" in " ".join(captured.get().split())


@pytest.mark.browser
def test_the_page(record: dict[str, Any], page: Page, tmp_path: Path) -> None:
    write_report(record, [make_picture(SIZES)], tmp_path / "report.html")
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector("html[data-ready=true]")
    options = "all => all.slice(1).map(option => [option.value, option.textContent])"
    assert page.eval_on_selector_all("#map-block option", options) == [[block, block] for block in BLOCKS]
    assert page.eval_on_selector_all("#map-head option", options) == [[head, head] for head in HEADS]
    assert page.locator("#multiples tbody th").all_inner_texts() == BLOCKS
    assert page.locator("#multiples thead th").all_inner_texts()[-3:] == HEADS
    assert page.locator("#token-classes tbody th").all_inner_texts() == BLOCKS
    axis = page.locator("#evolution-chart text[text-anchor=middle]").all_text_contents()
    assert axis == [*BLOCKS, "block"]
    names = page.locator("#bars .label").all_inner_texts()
    assert _numbers(names) == [block for block in BLOCKS for _ in range(2)]
    page.click("#bar-attention-2")
    assert page.inner_text("#detail-title").endswith("block 2")
    assert _numbers(page.locator("#head-bars .label").all_inner_texts()) == HEADS
    page.locator("#block").focus()
    page.keyboard.press("Home")
    assert page.inner_text("#block-value") == "0 of 0–3"
    page.hover("#token-grid [data-token='1']")
    assert page.inner_text("#inspector-title") == "Row 0, column 0"
    assert "counted from 0" in page.inner_text("footer")


def test_commands(tmp_path: Path) -> None:
    """``memories --block`` and ``--unit``, and ``explain --query ROW,COLUMN`` and ``grad_cam:block=``."""
    lens = classlens.load("builtin:cifar10")
    for block in (0, 5):
        args = ["memories", "builtin:cifar10", "--block", str(block), "--unit", "0", "--json"]
        shown = json.loads(CliRunner().invoke(app, args).stdout)
        assert (shown["block"], shown["unit"]) == (block, 0)
        scores = lens.view.space.weight @ lens.view.blocks[block].mlp.weight[:, 0]
        assert shown["rows"][0]["class_name"] == lens.classes.names[int(scores.argmax())]
        table = CliRunner().invoke(app, args[:-1], env={"COLUMNS": "100"}).stdout
        assert f"Classes of hidden unit 0, mlp, block {block} of" in " ".join(table.split())
        best = json.loads(CliRunner().invoke(app, [*args[:4], "--top", "1", "--json"]).stdout)["rows"][0]
        table = CliRunner().invoke(app, [*args[:4], "--top", "1"], env={"COLUMNS": "100"}).stdout
        cells = [cell.strip() for cell in table.splitlines()[-2].strip("│").split("│")]
        assert cells[:2] == [str(best["unit"]), best["class_name"]]
    picture(0).save(tmp_path / "photo.png")
    trace = lens.trace(tmp_path / "photo.png")
    for option, method, given in (
        (["--query", "0,1", "--method", "class_gradient"], "class_gradient", {"query": 2}),
        (["--method", "grad_cam:block=0"], "grad_cam", {"block": 0}),
    ):
        out = tmp_path / method
        args = [str(tmp_path / "photo.png"), *option, "--model", "builtin:cifar10", "--out", str(out)]
        assert CliRunner().invoke(app, ["explain", *args]).exit_code == 0
        (found,) = json.loads((out / "explain.json").read_text())["images"][0]["maps"].values()
        np.testing.assert_allclose(found, trace.map(method=method, **given)[0], rtol=1e-5)


def _numbers(texts: Any) -> list[str]:
    """The number after "block" or "head" in each text that has one."""
    return [found[1] for text in texts if (found := re.search(r"\b(?:block|head) (\d+)", text, re.IGNORECASE))]
