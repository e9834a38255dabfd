"""The page of published and measured values, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from classlens.analysis.analyze import AnalyzeResult, analyze
from classlens.analysis.published import compare
from classlens.core.stats import Statistics
from classlens.render.folders.analysis import write_analysis
from classlens.render.folders.figures import figures
from classlens.render.html.paper import write_paper
from tests.analysis.stores import StoreSpec, write_store
from tests.refusals import refused

HOSTILE = "<img src=x onerror=alert(1)>\u202e\x1b[31m"


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> AnalyzeResult:
    folder = tmp_path_factory.mktemp("stores")
    write_store(folder / "a.zarr", StoreSpec(model="paper:vit-b-32", conditions=("clean", "random_init", "no_cls")))
    write_store(folder / "b.zarr", StoreSpec(model=HOSTILE, images=3))
    return analyze([folder / "a.zarr", folder / "b.zarr"], statistics=Statistics(permutations=20, resamples=20))


@pytest.fixture(scope="module")
def made(analysis: AnalyzeResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paper")
    write_analysis(analysis, folder / "analysis", version="1")
    figures(folder / "analysis", formats=["png"])
    problems = {"paper:vit-l-16": "no <b>network</b>"}
    write_paper(analysis, folder / "analysis" / "figures", folder / "paper.html", version="1", problems=problems)
    return folder / "paper.html"


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page(made: Path, analysis: AnalyzeResult, page: Page, width: int) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(made.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h1").inner_text() == "The paper's values, published and measured"
    rows = page.locator("tbody tr:not(.model)")
    every = compare(analysis, {"paper:vit-l-16": "no <b>network</b>"})
    assert rows.count() == len(every)
    first = rows.first.locator("th, td").all_inner_texts()
    measured = every[0]
    assert first[:2] == ["tokens identifiable", "60.73"]
    assert first[2].startswith(f"{100 * measured.value:.2f} (")
    assert "n = 12" in first[2]
    apart = f"{100 * measured.value - 60.73:+.2f}".replace("-", "−")
    assert first[3] == apart
    heads = page.locator("tr.model").all_inner_texts()
    assert heads[0] == "paper:vit-b-32"
    assert heads[2] == "paper:vit-l-16: not measured: no <b>network</b>"
    assert "paper:vit-b-16: not measured: add --models paper:vit-b-16" in heads
    pictures = page.locator("img")
    assert pictures.count() > 10
    assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 300)")
    assert r"<img src=x onerror=alert(1)>\u202e\x1b[31m" in page.locator("ul").first.inner_text()
    assert said == []


def test_a_page_that_cannot_be_written(analysis: AnalyzeResult, tmp_path: Path) -> None:
    (tmp_path / "paper.html").mkdir()
    refused(lambda: write_paper(analysis, tmp_path, tmp_path / "paper.html", version="1"), "cannot be written")
    assert [path.name for path in tmp_path.iterdir()] == ["paper.html"]
