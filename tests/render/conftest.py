"""A browser and a page in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from classlens.render.html.report import write_report
from tests.render.browser import chromium, quiet
from tests.render.records import Record, Sizes, make_pictures, make_record

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # For one module only: the synchronous Playwright holds an event loop that other tests may want.
    with chromium() as found:
        yield found


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
