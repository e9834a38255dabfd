"""The gallery in a real browser: what is shown, how it scrolls, and what its address, keys and selection do."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from classlens.data.dataset import Dataset
from classlens.data.open_dataset import open_dataset
from classlens.render.gallery_record import QUESTIONS, gallery_record
from classlens.render.html.explore.gallery import gallery_page
from classlens.render.html.page import json_element
from tests.render.browser import quiet
from tests.render.galleries import ATTRS, GallerySizes, make_gallery, photo_files

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

HOST = "http://gallery.test/"
HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    '"><b id="injected">\'&amp;',
    "\u202e猫 عربى {{script}} ${1}",
    "a" * 240,
    "tab\tand line\nbreak.jpg",
    " space.jpg",
)
MANY = GallerySizes(images=5000, first_names=HOSTILE)


@dataclass
class Shown:
    """A gallery that is open in a browser, and the thumbnails that it asked for."""

    page: Page
    record: dict[str, Any]
    asked: list[str] = field(default_factory=list)

    def open(self, address: str = "") -> Shown:
        self.page.goto("about:blank")
        self.page.goto(f"{HOST}s0/index.html{address}")
        self.page.wait_for_selector("html[data-ready=true]")
        return self

    def count(self) -> int:
        return int(self.page.inner_text("#shown strong").replace(",", ""))

    def first(self, number: int = 12) -> list[int]:
        """Positions of the photos that stand first, without those whose row is kept for the keys."""
        script = """() => [...document.querySelectorAll('.photo')].map((cell) => [
            Number(cell.parentElement.ariaRowIndex), Number(cell.ariaColIndex), Number(cell.dataset.photo)])"""
        return [position for _, _, position in sorted(self.page.evaluate(script))][:number]

    def hash(self) -> str:
        return str(self.page.evaluate("location.hash"))

    def focused(self) -> int:
        return int(self.page.evaluate("document.activeElement.closest('.photo').dataset.photo"))


def record_of(sizes: GallerySizes, dataset: Dataset | None, **options: Any) -> dict[str, Any]:
    return gallery_record(make_gallery(sizes), ATTRS, store="photos.zarr", dataset=dataset, **options)


def site_of(**facts: Any) -> str:
    site = {"root": "../", "path": "s0/index.html", "store": 0, "title": "photos", "live": True, "takes_photos": False}
    links = [["Start", "index.html"], ["Photos", "s0/index.html"]]
    return json_element("site-record", {**site, "largest_photo": 1, "links": links, **facts}, subject="site")


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Shown]]:
    """Opens a gallery whose thumbnails are gray squares; those of ``missing`` are not there."""
    contexts = []

    def opened(
        sizes: GallerySizes = MANY, address: str = "", *, missing: tuple[int, ...] = (), **options: Any
    ) -> Shown:
        record = record_of(sizes, photo_files(tmp_path / "photos", sizes))
        context = quiet(browser, asks=(HOST,), **options)
        page = context.__enter__()
        contexts.append(context)
        shown = Shown(page, record)
        text = gallery_page(record, site_of(), version="1")

        def answer(route: Route) -> None:
            path = route.request.url.removeprefix(HOST)
            if path.startswith("s0/index.html"):
                route.fulfill(body=text.encode(errors="xmlcharrefreplace"), content_type="text/html; charset=utf-8")
            elif path.startswith("s0/thumbs/"):
                shown.asked.append(path)
                index = int(path.removeprefix("s0/thumbs/").removesuffix(".jpg"))
                route.fulfill(body=_gray(index), content_type="image/jpeg", status=404 if index in missing else 200)
            else:
                route.fulfill(body="<title>another page</title>", content_type="text/html")

        page.route("**/*", answer)
        return shown.open(address)

    yield opened
    for context in contexts:
        context.__exit__(None, None, None)


def _gray(index: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (16, 16), index % 256).save(buffer, format="JPEG")
    return buffer.getvalue()


def numbers(record: dict[str, Any]) -> pd.DataFrame:
    """The rows of the page, as pandas has them."""
    columns = {name: column["values"] for name, column in record["columns"].items()}
    names = ("index", "names", "label", "prediction", "correct", "confusion")
    table = pd.DataFrame({**{name: record[name] for name in names}, **columns})
    return table.astype(dict.fromkeys((*columns, "correct", "confusion"), float))


def expected(record: dict[str, Any], question: str) -> pd.DataFrame:
    """The photos of a question, as pandas chooses and sorts them."""
    table, asked = numbers(record), QUESTIONS[question]
    for name, relation, number in asked.where:
        table = table[{"equals": table[name] == number, "above": table[name] > number}[relation]]
    by = [asked.sort, "margin", "index"]
    return table.sort_values(by, ascending=[not asked.falling, True, True], na_position="last", kind="stable")


pytestmark = pytest.mark.browser


def test_every_question_shows_the_rows_of_pandas(show: Callable[..., Shown]) -> None:
    shown = show()
    for name, question in QUESTIONS.items():
        shown.page.click(f'[data-question="{name}"]')
        wanted = expected(shown.record, name)
        assert shown.count() == len(wanted), name
        assert shown.first() == wanted.index[:12].tolist(), name
        assert shown.page.input_value("#color") == question.color
        assert shown.page.input_value("#sort") == question.sort


def test_filters_join_and_the_address_restores_them(show: Callable[..., Shown]) -> None:
    shown = show()
    page, table = shown.page, expected(shown.record, "wrong")
    page.click('[data-question="wrong"]')
    label, prediction = table.groupby(["label", "prediction"]).size().idxmax()
    page.locator("#pairs button").first.click()
    table = table[(table["label"] == label) & (table["prediction"] == prediction)]
    assert shown.count() == len(table)
    page.locator("[data-bar='15']").click()
    edges = shown.record["columns"]["confidence"]["edges"]
    table = table[(table["confidence"] >= edges[15]) & (table["confidence"] < edges[16])]
    assert shown.count() == len(table)
    page.locator("[data-bar='19']").click(modifiers=["Shift"])
    table = expected(shown.record, "wrong").query("label == @label and prediction == @prediction")
    table = table[table["confidence"] >= edges[15]]
    page.fill("#search", "PHOTO 0 jpg")
    table = table[table["names"].str.lower().str.contains("photo") & table["names"].str.contains("0")]
    page.select_option("#sort", "entropy")
    page.click("#order")
    table = table.sort_values(["entropy", "margin", "index"], na_position="last")
    assert shown.count() == len(table) > 3
    assert shown.first() == table.index[:12].tolist()
    address = shown.hash()
    again = shown.open(address)
    assert (again.count(), again.first()) == (len(table), table.index[:12].tolist())
    assert page.input_value("#search") == "PHOTO 0 jpg"
    assert again.hash() == address


def test_bars_hold_their_lower_border(show: Callable[..., Shown]) -> None:
    shown = show(GallerySizes(images=300), "#question=late")
    values = numbers(shown.record)["commitment"]
    edges = shown.record["columns"]["commitment"]["edges"]
    for bar, low in enumerate(edges[:-1]):
        shown.page.locator(f"[data-bar='{bar}']").click()
        assert shown.count() == (values == low).sum()
    shown.page.locator("[data-bar='-1']").click()
    assert shown.count() == values.isna().sum() > 0
    shown.page.locator("#clear-range").click()
    assert shown.count() == 300


def test_the_way_back_leads_to_the_choice_before(show: Callable[..., Shown]) -> None:
    shown = show()
    page = shown.page
    page.click('[data-question="late"]')
    page.click('[data-question="doubtful"]')
    page.select_option("#label", "3")
    counts = shown.count()
    page.go_back()
    page.wait_for_function("document.querySelector('#label').value === ''")
    assert shown.count() == MANY.images
    page.go_back()
    page.wait_for_function("document.querySelector('[data-question=late]').getAttribute('aria-pressed') === 'true'")
    assert page.input_value("#sort") == "commitment"
    page.go_forward()
    page.go_forward()
    page.wait_for_function("document.querySelector('#label').value === '3'")
    assert shown.count() == counts


@pytest.mark.parametrize(
    "address",
    [
        "#question=nothing&label=99&prediction=-1&range=a..b&color=x&sort=y&view=z&size=q&photo=4",
        "#range=..&order=sideways&photo=1e9&name=%00%ff",
        "#label=__proto__&question=constructor&color=toString",
        "#%%%=&&==",
    ],
)
def test_addresses_of_nothing_show_everything(show: Callable[..., Shown], address: str) -> None:
    shown = show(GallerySizes(images=30), address)
    assert shown.count() == (0 if "name=" in address else 30)


def test_scrolling_to_the_end_keeps_the_page_small(show: Callable[..., Shown]) -> None:
    shown = show()
    page = shown.page
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    nodes, rows = [], set()
    height = page.evaluate("document.documentElement.scrollHeight")
    for step in range(17):
        page.evaluate("y => scrollTo(0, y)", height * step / 16)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        nodes.append(page.evaluate("document.querySelectorAll('*').length"))
        rows |= set(page.eval_on_selector_all(".photo-row", "rows => rows.map((row) => row.ariaRowIndex)"))
    print(f"first paint of 5,000 photos: {paint:.0f} ms; elements: {min(nodes)} to {max(nodes)}")
    assert max(nodes) < 2500
    # Rows in sight, two beyond at each side, and that of the keys.
    columns = int(page.get_attribute("#grid", "aria-colcount") or 0)
    assert page.locator(".photo").count() <= columns * (math.ceil(1000 / 150) + 7)
    last = math.ceil(5000 / columns)
    assert int(page.get_attribute("#grid", "aria-rowcount") or 0) == last
    assert page.locator(f'.photo-row[aria-rowindex="{last}"]').is_visible()
    assert page.locator('.photo[data-photo="4999"] a').is_visible()


def test_keys_move_open_and_select(show: Callable[..., Shown]) -> None:
    shown = show()
    page = shown.page
    page.locator('.photo[data-photo="0"] a').focus()
    columns = int(page.get_attribute("#grid", "aria-colcount") or 0)
    for key, position in (
        ("ArrowRight", 1),
        ("ArrowDown", 1 + columns),
        ("End", 2 * columns - 1),
        ("ArrowRight", 2 * columns),
        ("Home", 2 * columns),
        ("ArrowUp", columns),
        ("ArrowLeft", columns - 1),
        ("Control+End", 4999),
        ("ArrowRight", 4999),
        ("Control+Home", 0),
        ("ArrowUp", 0),
    ):
        page.keyboard.press(key)
        assert shown.focused() == position, key
    for _ in range(6):
        page.keyboard.press("PageDown")
    place = page.evaluate("document.activeElement.getBoundingClientRect().toJSON()")
    assert 0 < place["top"] < place["bottom"] <= 1000
    page.keyboard.press("Control+Home")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert page.inner_text("#selection-count") == "3 photos selected"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("04993")
    page.keyboard.press("Enter")
    assert shown.focused() == 4999
    page.keyboard.press("Enter")
    page.wait_for_url(f"{HOST}s0/photos/{shown.record['index'][4999]}.html")
    page.go_back()
    page.wait_for_selector("html[data-ready=true]")
    assert shown.count() == 1


def test_the_selection_opens_as_a_data_set(show: Callable[..., Shown], tmp_path: Path) -> None:
    shown = show()
    page = shown.page
    page.locator('.photo[data-photo="2"]').hover()
    page.locator('.photo[data-photo="2"] .pick').click()
    page.locator('.photo[data-photo="9"] a').click(modifiers=["Shift"])
    assert page.inner_text("#selection-count") == "8 photos selected"
    with page.expect_download() as waiting:
        page.click("#download")
    file = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(file)
    assert "1 photo cannot stand in a list" in page.inner_text("#download-note")
    dataset = open_dataset(f"list:{file}")
    wanted = [position for position in range(2, 10) if position != 4]
    folder = tmp_path / "photos"
    assert list(dataset.names) == [str(folder / MANY.names[position]) for position in wanted]
    labels = [dataset.classes[label].name for label in dataset.labels]
    assert labels == [MANY.classes[shown.record["label"][position]] for position in wanted]
    assert page.inner_text("#command").split()[:2] == ["classlens", "measure"]
    page.click("#select-none")
    page.click('[data-question="wrong"]')
    page.click("#select-shown")
    assert page.inner_text("#selection-count") == f"{shown.count():,} photos selected"


def test_names_stay_text(show: Callable[..., Shown]) -> None:
    sizes = GallerySizes(images=40, first_names=HOSTILE, classes=(*HOSTILE[:4], "tench"))
    shown = show(sizes)
    page = shown.page
    assert page.locator("#injected").count() == 0
    assert page.locator("img[src=x]").count() == 0
    assert page.locator(".photo img").first.get_attribute("alt") == HOSTILE[0]
    page.locator("#views-table").check(force=True)
    assert page.locator("tbody th").first.inner_text() == HOSTILE[0]
    assert page.locator("#injected").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_table_has_the_same_photos(show: Callable[..., Shown]) -> None:
    shown = show(MANY, "#question=close&view=table")
    wanted = expected(shown.record, "close")
    names = shown.page.locator("tbody th").all_inner_texts()
    assert names == [shown.record["names"][position] for position in wanted.index[:100]]
    shown.page.get_by_role("button", name="Show 100 more").click()
    assert shown.page.locator("tbody tr").count() == 200
    shown.page.get_by_role("button", name="Entropy").click()
    assert shown.page.input_value("#sort") == "entropy"


def test_a_photo_that_is_gone_has_a_placeholder(browser: Browser, tmp_path: Path) -> None:
    record = record_of(GallerySizes(images=4), None)
    with quiet(browser, asks=(HOST,)) as page:
        text = gallery_page({**record, "opens": False, "notes": ["the photos are gone"]}, site_of(), version="1")
        page.route("**/*", lambda route: route.fulfill(body=text, content_type="text/html"))
        page.goto(HOST)
        page.wait_for_selector("html[data-ready=true]")
        assert page.locator(".no-photo").count() == 4
        assert page.locator(".photo a[href]").count() == 0
        assert page.inner_text("#notes") == "The photos are gone."
        page.locator('.photo[data-photo="0"] .pick').click(force=True)
        assert "No list" in page.inner_text("#download-note")


def test_missing_thumbnails_become_placeholders(browser: Browser, tmp_path: Path) -> None:
    record = record_of(GallerySizes(images=6), photo_files(tmp_path, GallerySizes(images=6)))
    text = gallery_page(record, site_of(), version="1")
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    page = context.new_page()
    page.route(
        "**/*",
        lambda route: (
            route.fulfill(body=text, content_type="text/html")
            if "thumbs" not in route.request.url
            else route.fulfill(status=404)
        ),
    )
    page.goto(f"{HOST}s0/index.html")
    page.locator(".no-photo").nth(5).wait_for()  # the page forbids what wait_for_function evaluates
    assert page.locator(".no-photo").first.inner_text().endswith("photo missing")
    context.close()


def test_without_labels_or_columns(show: Callable[..., Shown]) -> None:
    shown = show(GallerySizes(images=20, labels=False, missing=("doubt", "context_lead")))
    page = shown.page
    names = set(page.eval_on_selector_all("[data-question]", "all => all.map((one) => one.dataset.question)"))
    assert names == {"all", "close", "late", "changed", "restless", "tokens", "outliers", "attention"}
    page.click("#missing-box summary")
    assert "measure anew with --context_lead" in page.inner_text("#missing")
    assert page.input_value("#color") == "confidence"
    assert not page.locator("#pairs-box").is_visible()


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_fits(show: Callable[..., Shown], width: int) -> None:
    sizes = GallerySizes(images=60, first_names=HOSTILE[:4], classes=(*HOSTILE[:4], "tench"))
    shown = show(sizes, viewport={"width": width, "height": 900})
    for view in ("grid", "table"):
        shown.page.locator(f"#views-{view}").check(force=True)
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_is_accessible(show: Callable[..., Shown], width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_core_python").__path__[0]
    script = next(Path(axe).rglob("axe.min.js")).read_text(encoding="utf-8")
    sizes = GallerySizes(images=12, first_names=HOSTILE[:4])
    shown = show(sizes, viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page = shown.page
    page.evaluate("document.querySelector('#panel').open = true")
    page.locator('.photo[data-photo="0"] .pick').click(force=True)
    page.evaluate(script)
    for view in ("grid", "table"):
        page.locator(f"#views-{view}").check(force=True)
        faults = page.evaluate("axe.run().then((found) => found.violations)")
        serious = [fault for fault in faults if fault["impact"] in ("serious", "critical")]
        assert not serious, json.dumps([(f["id"], [n["html"] for n in f["nodes"][:3]]) for f in serious], indent=1)


def test_numbers_round_trip() -> None:
    table = numbers(record_of(GallerySizes(images=200), None))
    drawn = make_gallery(GallerySizes(images=200)).images
    for name in ("confidence", "margin", "commitment"):
        np.testing.assert_allclose(table[name], drawn[name], rtol=5e-4)
