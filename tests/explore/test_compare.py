"""Two stores side by side on a server, and as a page of a static site."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("starlette")
from PIL import Image
from starlette.testclient import TestClient

from classlens.analysis.measured_store import MeasuredStore
from classlens.data.dataset import Dataset, ImageFiles
from classlens.explore.app import create_app
from classlens.explore.explorer import Explored, Explorer
from classlens.explore.page import Choice
from classlens.explore.pages import compare
from classlens.explore.security import Access
from tests.analysis.comparison.pairs import SideSpec, drawn_labels, write_side
from tests.render.browser import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PHOTOS = 30
LABELS = drawn_labels(PHOTOS + 10)


@pytest.fixture(scope="module")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explorer]:
    """Two stores of the same photos in another order, without the model, and one of other photos."""
    folder = tmp_path_factory.mktemp("explore")
    specs = [
        SideSpec(images=range(PHOTOS), labels=LABELS, skill=0.9),
        SideSpec(images=range(PHOTOS)[::-1], labels=LABELS, skill=0.2, seed=1, model="b", attribution=False),
        SideSpec(images=range(PHOTOS, PHOTOS + 10), labels=LABELS, seed=2),
    ]
    names = tuple(f"{photo:04}.png" for photo in range(PHOTOS))
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / name)
    photos = Dataset.whole("folder:photos", None, names, [-1] * PHOTOS, (), ImageFiles(folder, names))
    stores = [MeasuredStore(write_side(folder / f"{number}.zarr", spec)) for number, spec in enumerate(specs)]
    explored = [
        Explored(number, store, None if number else photos, None, "no photos") for number, store in enumerate(stores)
    ]
    explorer = Explorer(explored, None, "0.1.0")
    yield explorer
    explorer.jobs.close()


@pytest.fixture(scope="module")
def client(explorer: Explorer) -> TestClient:
    return TestClient(create_app(explorer, Access({"testserver"})))


def data_of(text: str, name: str) -> Any:
    match = re.search(f'id="{name}">(.*?)</script>', text)
    assert match is not None
    return json.loads(match[1])


def page_of(client: TestClient, path: str) -> Any:
    """The page, once its job is done."""
    for _ in range(100):
        answer = client.get(path)
        if answer.status_code != 202:
            return answer
        time.sleep(0.2)
    raise AssertionError("the comparison takes too long")


def test_a_comparison_is_a_job(client: TestClient, explorer: Explorer) -> None:
    answer = page_of(client, "/compare/0-1.html")
    assert answer.status_code == 200
    record = data_of(answer.text, "comparison")
    assert record["images"] == PHOTOS
    # Without the model no photo has a page; the second store has neither photos nor an atlas.
    assert record["links"] == [
        {"folder": "../s0/", "photos": [], "thumbs": None, "heads": True},
        {"folder": "../s1/", "photos": [], "thumbs": [], "heads": False},
    ]
    assert data_of(answer.text, "site-record")["path"] == "compare/0-1.html"
    names = explorer.stores[0].names, explorer.stores[1].names
    for row in record["listed"]:
        assert row["image"] == names[0][row["index_first"]] == names[1][row["index_second"]]
    turned = data_of(page_of(client, "/compare/1-0.html").text, "comparison")
    assert (turned["fixed"], turned["broken"]) == (record["broken"], record["fixed"])


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/compare/0-0.html", 404, "compared with itself"),
        ("/compare/0-9.html", 404, "there is no store 9"),
        ("/compare/0-2.html", 400, "no image in common by content"),
        ("/compare/0-x.html", 404, "no page at this address"),
    ],
)
def test_what_cannot_be_compared(client: TestClient, path: str, status: int, sentence: str) -> None:
    answer = page_of(client, path)
    assert answer.status_code == status
    assert sentence in data_of(answer.text, "message-record")["text"]


def test_a_static_site_leads_to_its_own_pages_alone(explorer: Explorer) -> None:
    assert compare.PAGE.export is not None
    files = dict(compare.PAGE.export(explorer, Choice({0: [3, 4], 1: [5], 2: [0]})))
    assert set(files) == {"compare/0-1.html", "compare/0-2.html", "compare/1-2.html"}
    record = data_of(str(files["compare/0-1.html"]), "comparison")
    assert [side["thumbs"] for side in record["links"]] == [[3, 4], []]
    assert "no image in common" in data_of(str(files["compare/0-2.html"]), "message-record")["text"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_photos_are_shown_in_a_browser(browser: Browser, client: TestClient, explorer: Explorer) -> None:
    """The answers of the server, with thumbnails as other pages of the site give them."""
    asked: list[str] = []

    def answer(route: Any) -> None:
        path = route.request.url.removeprefix("http://testserver")
        if path.endswith(".jpg"):
            asked.append(path)
            route.fulfill(body=(Path(str(explorer.stores[0].dataset.source.root)) / "0000.png").read_bytes())
            return
        reply = page_of(client, path)
        route.fulfill(status=reply.status_code, headers=dict(reply.headers), body=reply.content)

    page = browser.new_page(viewport={"width": 1280, "height": 3000})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.route("**/*", answer)
    page.goto("http://testserver/compare/0-1.html")
    page.wait_for_selector("html[data-ready=true]")
    page.wait_for_function("[...document.querySelectorAll('.flip img')].every(image => image.complete)")
    shown = page.locator(".flip img").evaluate_all("images => images.map(image => image.getAttribute('src'))")
    record = data_of(page_of(client, "/compare/0-1.html").text, "comparison")
    assert shown == [f"../s0/thumbs/{row['index_first']}.jpg" for row in record["listed"][:24]]
    assert set(asked) == {f"/{path.removeprefix('../')}" for path in shown}
    assert page.locator(".flip .photo img").first.evaluate("image => image.naturalWidth") == 8
    page.close()
    assert problems == []
