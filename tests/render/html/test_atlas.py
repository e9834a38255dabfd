"""The pages of an atlas: their files, and what they show in a real browser."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from classlens.analysis.atlas.atlas import Atlas
from classlens.data.dataset import Dataset
from classlens.render.atlas_crops import cut_crops
from classlens.render.atlas_record import PageChoice, choose_pages
from classlens.render.atlas_record.tokens import TokenPlace
from classlens.render.folders.atlas import write_atlas
from classlens.text import visible
from tests.render.atlases import AtlasSizes, image_names, make_atlas, photo_folder
from tests.render.browser import quiet
from tests.render.pages import decimal

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SMALL = AtlasSizes(classes=("tench", "church", "French horn"), images_per_class=12, blocks=2, heads=3, units=7)
HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    '"><b id="injected">\'&amp;\n../../x',
    "\u202e猫 عربى {{script}} ${1}",
    "a" * 300,
)
GONE = image_names(SMALL)[int(make_atlas(SMALL)["head_tokens"]["image_index"].iloc[4])]
"""A photo that head 0.0 reads, and that is no longer there."""


@dataclass(frozen=True)
class Written:
    atlas: Atlas
    pages: PageChoice
    folder: Path
    photos: Dataset | None

    def open(self, page: Page, address: str) -> Page:
        page.goto((self.folder / address).as_uri())
        page.wait_for_selector("html[data-ready=true]")
        return page


def written(tmp_path: Path, sizes: AtlasSizes, **choice: Any) -> Written:
    atlas = make_atlas(sizes)
    pages = choose_pages(atlas.tables, **choice)
    dataset = photo_folder(tmp_path / "photos", SMALL) if sizes is SMALL else None
    if dataset is not None:
        (tmp_path / "photos" / GONE).unlink()
    write_atlas(atlas, pages, tmp_path / "atlas", dataset=dataset, version="1")
    return Written(atlas, pages, tmp_path / "atlas", dataset)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return written(tmp_path_factory.mktemp("small"), SMALL, units_per_class=3)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Written:
    sizes = AtlasSizes(classes=HOSTILE, images_per_class=6, blocks=2, heads=2, units=4)
    return written(tmp_path_factory.mktemp("hostile"), sizes)


@pytest.fixture
def narrow(browser: Browser) -> Iterator[Page]:
    with quiet(browser, viewport={"width": 390, "height": 800}) as page:
        yield page


def one(table: pd.DataFrame, **values: Any) -> Any:
    for name, value in values.items():
        table = table[table[name] == value]
    (row,) = table.itertuples()
    return row


def shown_bars(page: Page, section: str) -> dict[str, tuple[str, str]]:
    """Value and interval of every bar of a section, by its label."""
    rows = page.locator(f"#{section} .bar").all()
    return {
        row.locator(".label").inner_text(): tuple((row.locator(".number").inner_text() + "\n").split("\n")[:2])  # type: ignore[misc]
        for row in rows
    }


def assert_interval(text: tuple[str, str], value: float, low: float, high: float, scale: float = 1) -> None:
    numbers = [decimal(part.rstrip("%")) for part in (text[0], *text[1].split(" to "))]
    assert numbers == pytest.approx([scale * value, scale * low, scale * high], abs=0.00501 * (100 if scale > 1 else 1))


# --- the files


def test_pages_load_nothing_and_are_named_by_numbers(small: Written, hostile: Written) -> None:
    for case in (small, hostile):
        names = {path.relative_to(case.folder).as_posix() for path in case.folder.rglob("*") if path.is_file()}
        units = {f"units/{block}.{unit}.html" for block, unit in case.pages.units}
        sizes = SMALL if case is small else AtlasSizes(classes=HOSTILE, blocks=2, heads=2)
        assert names == {
            *("index.html", "atlas.json"),
            *(f"classes/{index}.html" for index in range(len(sizes.classes))),
            *("blocks/0.html", "blocks/1.html"),
            *(f"heads/{block}.{head}.html" for block in range(2) for head in range(sizes.heads)),
            *units,
        }
        for name in names - {"atlas.json"}:
            text = (case.folder / name).read_text(encoding="utf-8")
            assert re.findall(r"https?://[^\"'\s]*", text) == ["http://www.w3.org/2000/svg"]
            assert "default-src &#x27;none&#x27;; img-src data:; style-src &#x27;sha256-" in text
            assert text.count("</script>") == 3, "two of data, one of code"
            assert len(text) < 200_000


# --- pages in a browser


@pytest.mark.browser
def test_every_link_of_every_page_leads_to_a_page(small: Written, narrow: Page) -> None:
    """All pages are reached from the first one, without a message or a request beyond the folder, at 390 pixels."""
    requests: list[str] = []
    narrow.on("request", lambda request: requests.append(request.url))
    root = small.folder.as_uri()
    waiting, seen = ["index.html"], set[str]()
    parts: dict[str, set[str]] = {}
    fragments: list[tuple[str, str]] = []
    while waiting:
        address = waiting.pop()
        if address in seen:
            continue
        seen.add(address)
        small.open(narrow, address)
        assert narrow.evaluate("document.documentElement.scrollWidth") <= 390, address
        parts[address] = set(narrow.eval_on_selector_all("[id]", "all => all.map(element => element.id)"))
        for link in narrow.eval_on_selector_all("a", "links => links.map(link => link.href)"):
            assert link.startswith(f"{root}/"), (address, link)
            target, _, fragment = link.removeprefix(f"{root}/").partition("#")
            assert (small.folder / target).is_file(), (address, link)
            waiting.append(target)
            if fragment:
                fragments.append((target, fragment))
    assert seen == {path.relative_to(small.folder).as_posix() for path in small.folder.rglob("*.html")}
    assert all(fragment in parts[target] for target, fragment in fragments)
    assert all(url.startswith((f"{root}/", "data:image/jpeg")) for url in requests)


@pytest.mark.browser
def test_from_class_to_head_to_unit_and_back(small: Written, page: Page) -> None:
    def follow(selector: str) -> str:
        page.locator(selector).first.click()
        page.wait_for_selector("html[data-ready=true]")
        return page.inner_text("h1")

    small.open(page, "index.html")
    name = page.locator("#classes a").first.inner_text()
    assert follow("#classes a") == name
    assert follow("#ranked a[href*=heads]").startswith("Head ")
    assert follow("#classes a[href*=classes]") in SMALL.classes
    assert follow("#unit-writers a").startswith("Unit ")
    assert follow("#values a") in SMALL.classes
    assert follow("#writers a[href*=heads]").startswith("Head ")
    assert follow("#crumbs a[href*=blocks]").startswith("Block ")
    assert follow("#units a").startswith("Unit ")
    assert follow("#crumbs a[rel=next]").startswith("Unit ")
    assert follow("#crumbs a") == "Atlas of builtin:photos"


@pytest.mark.browser
def test_search_with_the_keyboard(small: Written, page: Page) -> None:
    small.open(page, "heads/1.2.html")
    page.keyboard.press("/")
    page.wait_for_url("**/index.html#search")
    page.wait_for_selector("html[data-ready=true]")
    assert page.evaluate("document.activeElement.id") == "search"
    small.open(page, "index.html")
    assert page.evaluate("document.activeElement.id") == ""
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    assert page.input_value("#search") == ""
    page.keyboard.type("hor")
    names = page.locator("#results a > :nth-child(2)").all_inner_texts()
    assert names[0] == "French horn", "the class, before units that point at it"
    assert len(names) > 1
    page.keyboard.press("Escape")
    assert page.locator("#results a").count() == 0
    page.keyboard.type("1.")
    count = page.locator("#results a").count()
    chosen = "#results [aria-selected=true] a"
    options = page.locator("#results li").all_inner_texts()
    assert page.locator(chosen).count() == 1
    page.keyboard.press("ArrowUp")
    assert page.get_attribute("#search", "aria-activedescendant") == f"result-{count - 1}"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#results [aria-selected=true]") == options[1]
    page.fill("#search", "1")
    listed = page.locator("#results a").all_inner_texts()
    order = [" ".join(text.split()[:2]) for text in listed]
    assert order.index("block 1") < order.index("head 1.0") < order.index("head 0.1"), (
        "numbers that begin with it first"
    )
    page.fill("#search", "block/head")
    assert page.inner_text("#count") == "No page has these words."
    page.fill("#search", "HEAD 1.2")
    page.keyboard.press("Enter")
    page.wait_for_url("**/heads/1.2.html")


@pytest.mark.browser
def test_the_first_page(small: Written, page: Page) -> None:
    small.open(page, "index.html")
    tables = small.atlas.tables
    bars = shown_bars(page, "classes")
    assert set(bars) == set(SMALL.classes)
    for row in tables["classes"].itertuples():
        low, high = row.accuracy_low, row.accuracy_high
        assert_interval(bars[row.class_name], row.accuracy, low, high, scale=100)
    writers = tables["writers"]
    for block in range(2):
        for head in (0, 1, 2, -1):
            rows = writers[(writers["block"] == block) & (writers["head"] == head) & (writers["group"] == "all")]
            strength = rows["contribution"].abs().mean()
            name = f"MLP {block}" if head < 0 else f"Head {block}.{head}"
            shown = page.get_attribute(f'#heads .tile[aria-label^="{name}:"]', "aria-label")
            assert shown is not None
            assert decimal(shown.split(": ")[1]) == pytest.approx(strength, rel=0.006)
    assert "1 photo is gone, unreadable or changed since the measurement, and left out: " + GONE in page.inner_text(
        "[role=note]"
    )
    page.locator("#heads .tile").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#tip").splitlines()[0] == "Head 1.1"
    page.keyboard.press("Enter")
    page.wait_for_url("**/heads/1.1.html")


@pytest.mark.browser
def test_the_page_of_a_class(small: Written, page: Page) -> None:
    small.open(page, "classes/1.html")
    tables = small.atlas.tables
    assert page.inner_text("h1") == "church"
    facts = one(tables["classes"], category=1)
    assert f"{facts.correct} of {facts.images} right" in page.inner_text("#decisions dl")
    for own, other, label in (
        ("label", "prediction", "Confusions"),
        ("prediction", "label", "Other classes taken for it"),
    ):
        rows = tables["confusions"][tables["confusions"][own] == 1]
        assert len(rows)
        shown = shown_bars(page, f"decisions [aria-label='{label}']")
        assert list(shown) == rows[f"{other}_name"].tolist()
        for row in rows.itertuples():
            ends = row.share_low, row.share_high
            assert_interval(shown[getattr(row, f"{other}_name")], row.share, *ends, scale=100)
    for chart in ("on_top", "log_probability"):
        for group in ("right", "wrong"):
            points = page.eval_on_selector_all(
                f"[data-chart={chart}] .point.{group}",
                "all => all.map(e => [Number(e.dataset.depth), Number(e.dataset.value)])",
            )
            rows = tables["trajectory"]
            rows = rows[(rows["category"] == 1) & (rows["group"] == group)]
            assert [depth for depth, _ in points] == rows["depth"].tolist()
            assert [value for _, value in points] == pytest.approx(rows[chart].tolist(), rel=1e-5)
    writers = tables["writers"][tables["writers"]["category"] == 1]
    ranked = shown_bars(page, "ranked")
    assert list(ranked) == [
        f"MLP {row.block}" if row.head < 0 else f"head {row.block}.{row.head}"
        for row in writers[writers["group"] == "all"].sort_values("contribution", key=abs, ascending=False).itertuples()
    ]
    mlp = one(writers, block=1, head=-1, group="all")
    assert_interval(ranked["MLP 1"], mlp.contribution, mlp.low, mlp.high)
    wrong = one(writers, block=1, head=-1, group="wrong")
    note = page.locator("#ranked .bar", has_text="MLP 1").locator(".note").inner_text()
    assert decimal(note.split("wrong ")[1].split(" ")[0]) == pytest.approx(wrong.contribution, abs=0.00501)
    cell = '#writers .tile[aria-label^="Head 1.0:"]'
    for group in ("all", "wrong", "right"):
        page.locator(f"#writers [data-key={group}]").click()
        value = one(writers, block=1, head=0, group=group).contribution
        assert decimal((page.get_attribute(cell, "aria-label") or "").split(": ")[1]) == pytest.approx(
            value, abs=0.00501
        )
    units = tables["unit_writers"][tables["unit_writers"]["category"] == 1].head(3)
    added = shown_bars(page, "unit-writers")
    assert list(added) == [f"unit {row.block}.{row.unit}" for row in units.itertuples()]
    for row in units.itertuples():
        assert_interval(added[f"unit {row.block}.{row.unit}"], row.contribution, row.low, row.high)
    values = tables["unit_values"]
    values = values[(values["category"] == 1) & (values["class_rank"] == 0)].nlargest(3, "score")
    pointed = shown_bars(page, "values")
    assert {name: decimal(text) for name, (text, _) in pointed.items()} == pytest.approx(
        {f"unit {row.block}.{row.unit}": row.cosine for row in values.itertuples()}, abs=0.00501
    )
    tips = tables["tips"][tables["tips"]["label"] == 1].sort_values("difference", ascending=False)
    tipped = shown_bars(page, "tips")
    assert list(tipped) == [
        f"MLP {row.block}" if row.head < 0 else f"head {row.block}.{row.head}" for row in tips.itertuples()
    ]
    first = next(tips.itertuples())
    assert_interval(next(iter(tipped.values())), first.difference, first.low, first.high)


@pytest.mark.browser
def test_the_page_of_a_head(small: Written, page: Page) -> None:
    small.open(page, "heads/1.2.html")
    tables = small.atlas.tables
    writers = tables["writers"]
    rows = writers[(writers["block"] == 1) & (writers["head"] == 2) & (writers["group"] == "all")]
    shown = shown_bars(page, "classes")
    rows = rows.sort_values("contribution", ascending=False)
    assert list(shown) == [SMALL.classes[category] for category in rows["category"]]
    for row in rows.itertuples():
        assert_interval(shown[SMALL.classes[row.category]], row.contribution, row.low, row.high)
    heads = tables["heads"][tables["heads"]["block"] == 1]
    numbers = page.locator("#attention .bar .number").all_inner_texts()
    for place, name in enumerate(("distance", "entropy")):
        for row in heads.itertuples():
            text = numbers[3 * place + row.head].split("\n")
            ends = getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
            assert_interval((text[0], text[1]), getattr(row, name), *ends)
    assert page.locator("#attention .bar.current .label").all_inner_texts() == ["head 1.2"] * 2
    order = heads.sort_values("distance", ascending=False)["head"].tolist().index(2)
    words = ["the farthest of its block", "no. 2 of 3 in its block", "the nearest of its block"]
    assert words[order] in page.locator("#attention .hint").first.inner_text()
    maps = tables["head_map"]
    maps = maps[(maps["block"] == 1) & (maps["head"] == 2)]
    table = [row.locator("td").all_inner_texts() for row in page.locator("#map tbody tr").all()]
    assert [row[:2] for row in table] == maps[["input_name", "output_name"]].to_numpy().tolist()
    assert [decimal(row[2]) for row in table] == pytest.approx(maps["score"].tolist(), rel=0.006)
    assert page.locator("#map tr.copies").count() == (maps["input_class"] == maps["output_class"]).sum()
    tokens = tables["head_tokens"]
    tokens = tokens[(tokens["block"] == 1) & (tokens["head"] == 2)]
    assert page.locator("#tokens .file").all_inner_texts() == tokens["image"].tolist()
    captions = page.locator("#tokens figcaption").all_inner_texts()
    for text, row in zip(captions, tokens.itertuples(), strict=True):
        label, prediction = SMALL.classes[row.label], SMALL.classes[row.prediction]
        assert text.splitlines()[0] == (label if label == prediction else f"{label} taken for {prediction}")
        assert decimal(text.splitlines()[1]) == pytest.approx(row.contribution, abs=0.00501)


@pytest.mark.browser
def test_the_pages_of_a_block_and_a_unit(small: Written, page: Page) -> None:
    small.open(page, "blocks/1.html")
    tables = small.atlas.tables
    writers = tables["writers"][tables["writers"]["group"] == "all"]
    for head in (0, -1):
        for category, name in enumerate(SMALL.classes):
            label = f"{name}, {'MLP' if head < 0 else f'head 1.{head}'}:"
            shown = page.get_attribute(f'#classes .tile[aria-label^="{label}"]', "aria-label") or ""
            value = one(writers, block=1, head=head, category=category).contribution
            assert decimal(shown.rsplit(": ", 1)[1]) == pytest.approx(value, abs=0.00501)
    row = one(tables["heads"], block=1, head=2)
    cells = page.locator("#heads tbody tr").nth(2).locator("td").all_inner_texts()
    assert cells[0] == "1.2"
    assert_interval(
        (cells[2].split("\n")[0], cells[2].split("\n")[-1]), row.distance, row.distance_low, row.distance_high
    )
    block, unit = small.pages.units[-1]
    small.open(page, f"units/{block}.{unit}.html")
    values = tables["unit_values"]
    values = values[(values["block"] == block) & (values["unit"] == unit)]
    shown_values = shown_bars(page, "values")
    assert {name: decimal(text) for name, (text, _) in shown_values.items()} == pytest.approx(
        dict(zip(values["class_name"], values["cosine"], strict=True)), abs=0.00501
    )
    added = tables["unit_writers"]
    added = added[(added["block"] == block) & (added["unit"] == unit)]
    shown_classes = shown_bars(page, "classes")
    assert set(shown_classes) == {SMALL.classes[category] for category in added["category"]}
    for row in added.itertuples():
        assert_interval(shown_classes[SMALL.classes[row.category]], row.contribution, row.low, row.high)


@pytest.mark.browser
def test_crops_are_shown_and_a_missing_photo_leaves_a_tile(small: Written, page: Page) -> None:
    tokens = small.atlas.tables["head_tokens"]
    rows = tokens[(tokens["block"] == 0) & (tokens["head"] == 0)]
    small.open(page, "heads/0.0.html")
    tiles = page.locator("#tokens .crop").all()
    places = {TokenPlace(row.image_index, row.row, row.column): row.image for row in rows.itertuples()}
    assert small.photos is not None
    expected = cut_crops(small.photos, places, small.atlas.frames, small.atlas.grid).files
    for tile, place in zip(tiles, places, strict=True):
        if places[place] == GONE:
            assert tile.inner_text() == "photo missing"
        else:
            image = tile.locator("img")
            assert (
                max(image.evaluate("async i => { await i.decode(); return [i.naturalWidth, i.naturalHeight]; }")) == 160
            )
            source = image.get_attribute("src") or ""
            assert base64.b64decode(source.removeprefix("data:image/jpeg;base64,")) == expected[place]


@pytest.mark.browser
def test_hostile_names_are_text(hostile: Written, narrow: Page) -> None:
    for number, name in enumerate(HOSTILE):
        hostile.open(narrow, f"classes/{number}.html")
        assert narrow.inner_text("h1") == visible(name)
        assert narrow.title() == f"{visible(name)} · atlas of builtin:photos"
        assert narrow.locator("#injected, main img").count() == 0
        assert narrow.evaluate("document.documentElement.scrollWidth") <= 390
    for address in ("index.html", "heads/1.1.html", "blocks/1.html"):
        hostile.open(narrow, address)
        assert set(narrow.locator("#classes .label, #classes [role=rowheader]").all_inner_texts()) == set(
            map(visible, HOSTILE)
        )
        assert narrow.locator("#injected, main img").count() == 0
        assert narrow.evaluate("document.documentElement.scrollWidth") <= 390
    hostile.open(narrow, "index.html")
    narrow.fill("#search", "onerror")
    narrow.keyboard.press("Enter")
    narrow.wait_for_url("**/classes/0.html")


@pytest.mark.browser
@pytest.mark.parametrize("labels", [True, False])
def test_a_store_without_units_or_labels(tmp_path: Path, narrow: Page, labels: bool) -> None:
    sizes = AtlasSizes(classes=("a", "b"), images_per_class=4, blocks=2, heads=2, units=0, labels=labels, tokens=False)
    case = written(tmp_path, sizes)
    case.open(narrow, "index.html")
    assert "--units" in narrow.inner_text("#units")
    assert (narrow.inner_text("#classes h2") == "Accuracy by class") == labels
    case.open(narrow, "classes/0.html")
    assert narrow.locator("#decisions").count() == int(labels)
    assert narrow.locator("#trajectory polyline").count() == (4 if labels else 2)
    assert narrow.locator("#writers .choices button").count() == (3 if labels else 1)
    assert narrow.locator("#tokens .tokens li").count() == 4, "tokens in words, without photos"
    case.open(narrow, "heads/0.1.html")
    assert narrow.locator("#map, #tokens").count() == 0


@pytest.mark.browser
def test_a_thousand_classes(tmp_path: Path, narrow: Page) -> None:
    sizes = AtlasSizes(classes=[f"class no. {i}" for i in range(1000)], images_per_class=2, blocks=1, heads=2, units=3)
    case = written(tmp_path, sizes, classes=[7, 999], units_per_class=1)
    case.open(narrow, "index.html")
    assert narrow.locator("#classes .bar").count() == 1000
    assert narrow.locator("#classes a").count() == 2, "classes without a page are text"
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 390
    narrow.fill("#search", "no. 999")
    narrow.keyboard.press("Enter")
    narrow.wait_for_url("**/classes/999.html")
    narrow.wait_for_selector("html[data-ready=true]")
    assert narrow.inner_text("h1") == "class no. 999"
