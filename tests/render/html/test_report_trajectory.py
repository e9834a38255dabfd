"""The panel of the decision trajectory, and links to an image of the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from classlens.render.html.report import write_report
from tests.render.records import Record, Sizes, make_pictures

if TYPE_CHECKING:
    from playwright.sync_api import Page

Open = Callable[[Sizes], tuple["Page", Record]]
pytestmark = pytest.mark.browser
FOUR = Sizes(blocks=4, images=("a.png", "b.png"))


def test_bars_and_margins_are_the_record(show: Open) -> None:
    page, record = show(FOUR)
    for number in (0, 1):
        page.click(f"#image-choice [data-image='{number}']")
        image = record["images"][number]
        wanted = image["trajectory"]
        bars = page.eval_on_selector_all(
            "#trajectory-chart .share",
            "bars => bars.map(({ dataset, height }) => "
            "[dataset.depth, dataset.class, dataset.value, height.baseVal.value].map(Number))",
        )
        rows = [
            (depth, index, share)
            for depth, places in enumerate(wanted["top"])
            for index, share in zip(places, wanted["probability"][depth], strict=True)
        ]
        assert [tuple(bar[:2]) for bar in bars] == [row[:2] for row in rows]
        assert [bar[2] for bar in bars] == pytest.approx([row[2] for row in rows], rel=1e-5)
        full = bars[0][3] / bars[0][2]
        assert [bar[3] for bar in bars] == pytest.approx([full * row[2] for row in rows], abs=1e-3)
        margins = page.eval_on_selector_all(
            "#trajectory-chart circle",
            "dots => dots.map(({ dataset, cy }) => [dataset.value, cy.baseVal.value].map(Number))",
        )
        assert [value for value, _ in margins] == pytest.approx(image["margin"], rel=1e-5)
        values, heights = np.transpose(margins)
        slope, zero = np.polyfit(values, heights, 1)
        assert slope < 0, "larger margins are higher up"
        assert heights.tolist() == pytest.approx((zero + slope * values).tolist(), abs=1e-2)
    page.locator("#trajectory-chart .strip").nth(2).click(force=True)
    assert page.input_value("#block") == "1", "depth 0 is the embeddings"


def test_when_the_decision_falls_in_words(show: Open) -> None:
    page, record = show(FOUR)
    for tops, words in {
        (3, 3, 3, 3, 3): "The decision for cat stands from the embeddings on.",
        (5, 5, 3, 3, 3): "The decision for cat falls at block 1. Before that it was dog (up to block 0).",
        (1, 5, 5, 3, 5): "The decision for dog falls at block 3. Before that it was automobile (after the embeddings), "
        "dog (after blocks 0 to 1), cat (after block 2).",
        (0, 1, 2, 5, 3): "The decision for cat falls at block 3. Before that it was automobile (after block 0), bird "
        "(after block 1), dog (after block 2), after other classes.",
    }.items():
        trajectory = record["images"][0]["trajectory"]
        trajectory["top"] = [[top] for top in tops]
        trajectory["probability"] = [[0.5] for _ in tops]
        record["class_names"] |= {"0": "airplane", "1": "automobile", "2": "bird", "3": "cat", "5": "dog"}
        write_report(record, make_pictures(FOUR), Path(page.url.removeprefix("file://").partition("#")[0]))
        page.reload()
        assert page.inner_text("#trajectory-words") == words


def test_a_link_opens_its_image(show: Open) -> None:
    page, _ = show(FOUR)
    page.click("#image-choice [data-image='1']")
    assert page.url.endswith("#image-1")
    page.reload()
    assert page.inner_text("#seen-caption") == "b.png"
    page.goto(page.url.replace("#image-1", "#image-0"))
    assert page.inner_text("#seen-caption") == "a.png"
    page.goto(page.url.replace("#image-0", "#image-7"))
    page.reload()
    assert page.inner_text("#seen-caption") == "a.png", "an image that is not there changes nothing"
