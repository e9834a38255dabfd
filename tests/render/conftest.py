"""An analysis, a browser and a page in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from classlens.analysis.analyze import AnalyzeResult, analyze
from classlens.core.stats import Statistics
from classlens.render.html.report import write_report
from classlens.tasks.tokens.conditions.registry import decoder_conditions
from tests.analysis.stores import StoreSpec, write_store
from tests.render.browser import chromium, quiet
from tests.render.records import Record, Sizes, make_pictures, make_record

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="session")
def three_models(tmp_path_factory: pytest.TempPathFactory) -> AnalyzeResult:
    """The analysis of three models, of which the second lacks masks, memories and ``[CLS]``."""
    folder = tmp_path_factory.mktemp("stores")
    conditions = (
        "clean",
        "random_init",
        "self_only",
        "no_cls",
        "context_removed",
        "class_removed",
        "outliers_removed",
        *decoder_conditions(),
    )
    write_store(folder / "a.zarr", StoreSpec(masks=True, conditions=conditions, model="first | odd", images=20))
    write_store(folder / "b.zarr", StoreSpec(model="second", prefix=(), memories=False, blocks=5))
    write_store(folder / "c.zarr", StoreSpec(model="third", label_groups=(1, 0, -1, 0, 1)))
    return analyze([folder / f"{name}.zarr" for name in "abc"], statistics=Statistics(permutations=50, resamples=20))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # For one module only: the synchronous Playwright holds an event loop that other tests may want.
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that, at the end of the test, must have stayed silent and asked no network for anything."""
    with quiet(browser) as page:
        yield page


@pytest.fixture
def show(page: Page, tmp_path: Path) -> Callable[[Sizes], tuple[Page, Record]]:
    """Makes a record, writes it as a report and opens that."""

    def opened(sizes: Sizes) -> tuple[Page, Record]:
        record = make_record(sizes)
        write_report(record, make_pictures(sizes), tmp_path / "report.html")
        page.goto((tmp_path / "report.html").as_uri())
        page.wait_for_selector("html[data-ready=true]")
        return page, record

    return opened
