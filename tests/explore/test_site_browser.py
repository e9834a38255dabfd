"""The site in a real Chromium: photos that are dropped, a busy model, a server that ends, keyboard and axe-core."""

from __future__ import annotations

import base64
import importlib.util
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from classlens.explore.explorer import Explored, Explorer
from classlens.lens.lens import Lens
from tests.explore.conftest import MARKUP, photo_bytes
from tests.explore.running import running
from tests.render.browser import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
READY = "html[data-ready=true]"
DOWN = "The server does not answer: start classlens explore again, and reload the page."
TRANSFER = """([content, name, type]) => {
  const bytes = Uint8Array.from(atob(content), (char) => char.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  return transfer;
}"""


LARGE = """() => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(20 * 2 ** 20 + 1)], "large.png", { type: "image/png" }));
  return transfer;
}"""


def text(page: Page, element: str, words: str) -> None:
    """Wait until an element says something. Playwright's wait_for_function would need the policy to allow eval."""
    page.locator(element).filter(has_text=words).wait_for()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def server(explorer: Explorer) -> Iterator[str]:
    with running(explorer) as address:
        yield address


@contextmanager
def reader(browser: Browser, **options: Any) -> Iterator[Page]:
    """A page in a context of its own; fails at the end if a script failed or a dialog came up."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))

    def note(message: Any) -> None:
        # A photo page without a thumbnail, a refused upload: the browser logs every status of an error.
        if message.type == "error" and "Failed to load resource" not in message.text:
            problems.append(message.text)

    page.on("console", note)
    try:
        yield page
    finally:
        context.close()
    assert not problems


@contextmanager
def busy(explorer: Explorer, key: str = "busy") -> Iterator[threading.Event]:
    """The model is at work until the event is set."""
    gate = threading.Event()
    explorer.jobs.submit(key, "running another photo", lambda: gate.wait(60))
    try:
        yield gate
    finally:
        gate.set()


def test_start_page(browser: Browser, server: str) -> None:
    with reader(browser) as page:
        page.goto(server)
        page.wait_for_selector(READY)
        assert page.locator(".store h2").inner_text() == MARKUP
        assert "builtin:cifar10, 10 classes" in page.inner_text("#model-facts")
        assert page.locator(".store dd").nth(2).inner_text() == "3"
        page.click(".store .links a:last-child")
        page.wait_for_selector(READY)
        assert page.url == f"{server}s0/atlas/index.html"
        page.go_back()
        page.wait_for_selector(".store")
        page.go_forward()
        page.wait_for_selector(READY)
        assert page.url == f"{server}s0/atlas/index.html"
        page.click("#site-name")
        page.wait_for_selector(".store")


@pytest.mark.parametrize("way", ["drop", "paste", "bar", "button"])
def test_photo_of_ones_own(way: str, browser: Browser, server: str) -> None:
    name = f"{MARKUP}.png"
    with reader(browser) as page:
        page.goto(server)
        page.wait_for_selector(READY)
        if way in ("drop", "paste"):
            content = base64.b64encode(photo_bytes()).decode()
            transfer = page.evaluate_handle(TRANSFER, [content, name, "image/png"])
            if way == "drop":
                page.dispatch_event("main", "dragover", {"dataTransfer": transfer})
                assert page.get_attribute("html", "data-dragging") == "true"
                page.dispatch_event("main", "drop", {"dataTransfer": transfer})
            else:
                paste = (
                    "(t) => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: t, bubbles: true }))"
                )
                page.evaluate(paste, transfer)
        else:
            photo: Any = {"name": name, "mimeType": "image/png", "buffer": photo_bytes()}
            page.set_input_files("#site-file" if way == "bar" else "#drop-file", photo)
        page.wait_for_url(f"{server}photos/*.html")
        page.wait_for_selector(READY)
        assert MARKUP in page.title()
        page.go_back()
        page.wait_for_selector(".store")
        assert not page.is_visible("#site-error")
        page.go_forward()
        page.wait_for_selector(READY)


def test_photos_that_are_refused(browser: Browser, server: str) -> None:
    with reader(browser) as page:
        page.goto(server)
        page.wait_for_selector(READY)
        broken: Any = {"name": "<b>broken.png", "mimeType": "image/png", "buffer": b"no photo"}
        page.set_input_files("#site-file", broken)
        page.wait_for_selector("#site-error:visible")
        assert page.inner_text("#site-error").startswith("Image '<b>broken.png' is not an image that Pillow knows")
        large = page.evaluate_handle(LARGE)
        page.dispatch_event("main", "drop", {"dataTransfer": large})
        text(page, "#site-error", "Photo large.png is larger than 20 MB: open a smaller one.")
        good: Any = {"name": "good.png", "mimeType": "image/png", "buffer": photo_bytes()}
        page.set_input_files("#site-file", good)
        page.wait_for_url(f"{server}photos/*.html")
        page.wait_for_selector(READY)


def test_two_readers_wait_their_turn(browser: Browser, server: str, explorer: Explorer) -> None:
    with ExitStack() as stack:
        gate = stack.enter_context(busy(explorer))
        first, second = (stack.enter_context(reader(browser)) for _ in range(2))
        first.goto(f"{server}s0/photos/0.html")
        second.goto(f"{server}s0/photos/1.html")
        for page, words in ((first, "1 request of the model before this one."), (second, "2 requests of the model")):
            page.wait_for_selector("html[data-ready=waiting]")
            text(page, "#message-text", words)
            assert page.is_visible("#message-work progress")
        third = stack.enter_context(reader(browser))
        third.goto(server)  # pages without the model are not held up
        third.wait_for_selector(READY)
        gate.set()
        for page in (first, second):
            page.wait_for_selector(READY)
            assert page.is_visible("#methods")


def test_work_that_fails_says_why(browser: Browser, server: str, explorer: Explorer) -> None:
    with busy(explorer) as gate, reader(browser) as page:
        identifier = explorer.uploads.add("photo.png", photo_bytes())
        page.goto(f"{server}photos/{identifier}.html")
        page.wait_for_selector("html[data-ready=waiting]")
        explorer.uploads._photos.clear()
        explorer.jobs._jobs[("photo", identifier, None, None)]._work = lambda: 1 / 0
        gate.set()
        page.wait_for_selector(READY)
        assert page.inner_text("#message-title") == "This did not work"
        assert "ZeroDivisionError" in page.inner_text("#message-text")
        page.reload()
        page.wait_for_selector(READY)
        assert page.inner_text("#message-text") == "This photo is no longer kept: open it again."


def test_server_that_ends_and_starts_again(browser: Browser, explored: list[Explored], small_lens: Lens) -> None:
    first, second = (Explorer(explored, small_lens, "0.0") for _ in range(2))
    with reader(browser) as page, busy(first):
        with running(first) as address:
            page.goto(f"{address}s0/photos/2.html")
            page.wait_for_selector("html[data-ready=waiting]")
            other = page.context.new_page()
            other.goto(address)
            other.wait_for_selector(READY)
        text(page, "#message-text", DOWN)
        photo: Any = {"name": "photo.png", "mimeType": "image/png", "buffer": photo_bytes()}
        other.set_input_files("#site-file", photo)
        other.wait_for_selector("#site-error:visible")
        assert other.inner_text("#site-error") == DOWN
        with running(second, int(address.rstrip("/").rpartition(":")[2])):
            page.wait_for_selector(READY, timeout=60_000)  # it asks until somebody answers
            assert page.is_visible("#methods")
            other.reload()
            other.wait_for_selector(READY)
            assert not other.is_visible("#site-error")


def test_keyboard_reaches_everything(browser: Browser, server: str) -> None:
    photo: Any = {"name": "photo.png", "mimeType": "image/png", "buffer": photo_bytes()}
    with reader(browser) as page:
        # From the start: choosers are caught a while after the first listener asks for it.
        page.on("filechooser", lambda chooser: chooser.set_files(photo))
        page.goto(server)
        page.wait_for_selector(READY)
        reached = []
        for _ in range(12):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        for wanted in ("site-name", "Photos", "Classes and heads", "site-file", MARKUP, "drop-file"):
            assert wanted in reached, wanted
        page.focus("#site-file")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{server}photos/*.html")
        page.wait_for_selector(READY)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(scheme: Any, browser: Browser, server: str, explorer: Explorer) -> None:
    spec = importlib.util.find_spec("axe_core_python")
    if spec is None or spec.origin is None:
        pytest.skip("axe-core-python is missing")
    axe = (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")
    faults = []
    with reader(browser, color_scheme=scheme) as page:

        def check(path: str, ready: str = READY) -> None:
            page.goto(server + path)
            page.wait_for_selector(ready)
            page.evaluate(axe)
            result = page.evaluate("axe.run()")
            for fault in result["violations"]:
                if fault["impact"] in ("serious", "critical"):
                    nodes = [(node["html"][:160], node["failureSummary"][:200]) for node in fault["nodes"][:3]]
                    faults.append((path, fault["id"], nodes))
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path

        check("index.html")
        check("nothing.html")
        check("s0/photos/0.html")
        check("s0/index.html")
        check("s0/atlas/index.html")
        head, unit = "heads/2.1.html", page.evaluate("[...document.links].map((a) => a.getAttribute('href'))")
        for path in ("classes/3.html", "blocks/2.html", head, next((a for a in unit if a.startswith("units/")), head)):
            check(f"s0/atlas/{path}")
        with busy(explorer):
            check("s0/photos/1.html", "html[data-ready=waiting]")
        page.set_viewport_size({"width": 390, "height": 800})
        check("index.html")
        check("nothing.html")
    assert not faults
