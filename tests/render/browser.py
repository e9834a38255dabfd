"""A real Chromium for tests of pages, driven through Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

# No display, no GPU, and nothing that would reach for a network by itself.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser; skips the test where there is none, or fails it where CLASSLENS_REQUIRE_BROWSER is 1."""
    executable = os.environ.get("CLASSLENS_CHROMIUM") or shutil.which("chromium")
    if executable is None:
        _missing("chromium is missing: apt-get install chromium, or set CLASSLENS_CHROMIUM to the path of one")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("playwright is missing: pip install classlens[test]")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, headless=True, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def quiet(browser: Browser, *, asks: tuple[str, ...] = (), **options: Any) -> Iterator[Page]:
    """A page in a context of its own; fails at the end if it logged anything, or asked for more than files.

    ``asks``: beginnings of other addresses that it may ask for.
    """
    context = browser.new_context(**{"viewport": {"width": 1300, "height": 1000}, **options})
    page = context.new_page()
    problems: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("requestfailed", lambda request: problems.extend(_failure(request, asks)))
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: requests.append(request.url))
    try:
        yield page
    finally:
        context.close()
    assert not problems
    assert requests, "the page was never opened"
    assert not [url[:80] for url in requests if not url.startswith(("file:", "data:", *asks))]


def _failure(request: Request, asks: tuple[str, ...]) -> list[str]:
    """A request that failed; none for one that a page dropped, as it does with pictures that it leaves."""
    dropped = bool(asks) and request.url.startswith(asks) and request.failure == "net::ERR_ABORTED"
    return [] if dropped else [f"failed: {request.url[:80]}"]


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CLASSLENS_REQUIRE_BROWSER") == "1":
        pytest.fail(f"{reason} (CLASSLENS_REQUIRE_BROWSER=1)", pytrace=False)
    pytest.skip(reason)
