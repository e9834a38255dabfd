"""Edits by click in a real Chromium: what the page shows is what Python computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("starlette")

import classlens
from classlens.explore.explorer import Explorer
from tests.explore.edited import make_explorer, serving
from tests.render.browser import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
SHOWN = "#edits[data-shown]"


@pytest.fixture(scope="module")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Explorer:
    return make_explorer(tmp_path_factory.mktemp("edits"))


@pytest.fixture(scope="module")
def server(explorer: Explorer) -> Iterator[str]:
    with serving(explorer) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@contextmanager
def opened(browser: Browser, server: str, hash_: str = "", *, refused: bool = False, **options: Any) -> Iterator[Page]:
    """The page of photo 1; fails at the end if a script failed, or a request but those that are refused."""
    context = browser.new_context(**{"viewport": {"width": 1300, "height": 1000}, **options})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("response", lambda answer: problems.append(answer.url) if answer.status >= 500 else None)
    page.on(
        "console",
        lambda message: (
            problems.append(message.text)
            if message.type == "error" and not (refused or "favicon" in str(message.location))
            else None
        ),
    )
    try:
        page.goto(f"{server}s0/photos/1.html{hash_}")
        page.wait_for_selector("html[data-ready=true] #edits")
        yield page
    finally:
        context.close()
    assert not problems


def shown_plan(page: Page) -> str:
    """The key of the plan that the result on the page is of."""
    page.wait_for_selector(SHOWN)
    return str(page.locator("#edits").get_attribute("data-shown"))


def assert_shows(page: Page, explorer: Explorer, *edits: classlens.Edit) -> None:
    """Every number of the result is that of Python, to the last digits that the page keeps."""
    shown_plan(page)
    lens, picture = explorer.lens, explorer.store(0).picture(1)
    assert lens is not None
    original = lens.trace(picture)
    target = int(original.model_logits.values.argmax())
    with lens.edit(*edits):
        trace = lens.trace(picture)
        maps = trace.map(target).values[0].ravel()
        facts = trace.trajectory(target)
    rows = page.locator(".edit-class").all()
    assert len(rows) >= 5
    for row in rows:
        index = int(str(row.get_attribute("data-class")))
        edited, before = (float(run.model_logits[0, index]) for run in (trace, original))
        assert float(str(row.get_attribute("data-original"))) == pytest.approx(before, abs=1e-6)
        assert float(str(row.get_attribute("data-edited"))) == pytest.approx(edited, abs=1e-6)
        assert float(str(row.get_attribute("data-change"))) == pytest.approx(edited - before, abs=2e-6)
    assert int(str(rows[0].get_attribute("data-class"))) == target
    cells = "cells => cells.map(cell => cell.dataset.value === '' ? null : Number(cell.dataset.value))"
    values = page.locator("#edits-maps figure:nth-of-type(2) .cell").evaluate_all(cells)
    assert len(values) == len(maps)
    for value, expected in zip(values, maps, strict=True):
        assert value is None or value == pytest.approx(expected, abs=1e-6)
    less = maps - original.map(target).values[0].ravel()
    values = page.locator("#edits-maps figure:nth-of-type(3) .cell").evaluate_all(cells)
    for value, expected in zip(values, less, strict=True):
        assert value is None or value == pytest.approx(expected, abs=1e-6)
    points = page.locator("#edits-trajectory rect.point").evaluate_all(
        "all => all.map(one => Number(one.dataset.value))"
    )
    np.testing.assert_allclose(points, np.exp(facts["log_probability"].values[0]), rtol=0, atol=1e-6)


def part(block: int, name: str) -> str:
    return f'.edit-part[data-block="{block}"][data-part="{name}"]'


def cell(page: Page, token: int) -> Any:
    return page.locator(f'#edits-brush .cell[data-token="{token}"]')


def pressed(page: Page) -> list[int]:
    return list(
        page.locator('#edits-brush .cell[aria-pressed="true"]').evaluate_all(
            "all => all.map(one => +one.dataset.token)"
        )
    )


def change(page: Page, act: Callable[[], object]) -> None:
    """Act, and wait for the result of what it changes."""
    before = page.locator("#edits").get_attribute("data-shown")
    act()
    page.wait_for_function(
        "before => ![undefined, before].includes(document.getElementById('edits').dataset.shown)", arg=before
    )


def test_heads_and_sublayers_undo_and_redo(browser: Browser, server: str, explorer: Explorer) -> None:
    with opened(browser, server) as page:
        assert shown_plan(page) == "none"
        change(page, page.locator(part(4, "1")).click)
        change(page, page.locator(part(5, "1")).click)
        assert page.locator("#edits-list code").all_inner_texts() == ["AblateHeads:heads=1:blocks=4-5"]
        change(page, page.locator(part(2, "mlp")).click)
        assert page.locator(part(2, "mlp")).get_attribute("aria-pressed") == "true"
        heads, mlp = classlens.AblateHeads([1], blocks=[4, 5]), classlens.AblateSublayer("mlp", blocks=[2])
        assert_shows(page, explorer, heads, mlp)
        change(page, lambda: page.keyboard.press("Control+z"))
        assert_shows(page, explorer, heads)
        change(page, lambda: page.keyboard.press("Control+Shift+z"))
        assert_shows(page, explorer, heads, mlp)
        change(page, page.locator("#edits-undo").click)
        change(page, page.locator(".edit-remove").first.click)
        assert shown_plan(page) == "none"
        assert page.locator("#edits-result").is_hidden()


def test_brush_drops_and_brings_back(browser: Browser, server: str, explorer: Explorer) -> None:
    with opened(browser, server) as page:
        page.locator("#edits-brush").scroll_into_view_if_needed()

        def stroke(*tokens: int) -> None:
            boxes = [cell(page, token).bounding_box() for token in tokens]
            for number, box in enumerate(boxes):
                page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=6)
                if number == 0:
                    page.mouse.down()
            page.mouse.up()

        change(page, lambda: stroke(1, 4))
        assert pressed(page) == [1, 2, 3, 4]
        change(page, lambda: stroke(3, 11))
        assert pressed(page) == [1, 2, 4]
        page.keyboard.down("Shift")
        change(page, lambda: stroke(20, 4))
        page.keyboard.up("Shift")
        assert pressed(page) == [1, 2]
        cell(page, 64).focus()
        page.keyboard.press("ArrowUp")
        change(page, lambda: page.keyboard.press("Space"))
        assert pressed(page) == [1, 2, 56]
        kept = ~np.isin(np.arange(65), [1, 2, 56])
        assert_shows(page, explorer, classlens.KeepTokens(kept))
        # Three undone steps, each one stroke, not one token.
        for _ in range(3):
            change(page, lambda: page.keyboard.press("Control+z"))
        assert pressed(page) == [1, 2, 3, 4]


def test_map_chooses_tokens(browser: Browser, server: str, explorer: Explorer) -> None:
    assert explorer.lens is not None
    values = explorer.lens.trace(explorer.store(0).picture(1)).map().values[0].ravel()
    with opened(browser, server) as page:
        page.fill("#edits-share", "25")
        change(page, page.locator("#edits-most").click)
        assert pressed(page) == sorted((1 + np.argsort(-values)[:16]).tolist())
        change(page, page.locator("#edits-least").click)
        assert pressed(page) == sorted((1 + np.argsort(values)[:16]).tolist())
        change(page, page.locator("#edits-invert").click)
        assert pressed(page) == sorted((1 + np.argsort(values)[16:]).tolist())
        change(page, page.locator("#edits-clear-tokens").click)
        assert pressed(page) == []


def test_units_patches_and_any_edit(browser: Browser, server: str, explorer: Explorer) -> None:
    assert explorer.lens is not None
    with opened(browser, server) as page:
        page.fill("#edits-units", "5.17, 5.3 2.40")
        change(page, lambda: page.keyboard.press("Enter"))
        change(page, page.locator('[data-switch="SelfOnly"]').click)
        page.locator("#edits-patch summary").click()
        page.fill("#edits-source", "2")
        page.select_option("#edits-patch-site", "attn_out")
        page.fill("#edits-patch-blocks", "1-2")
        change(page, page.locator("#edits-patch-form button").click)
        page.locator("#edits-more summary").click()
        page.select_option("#edits-more-name", "CutAttention")
        page.fill("#edits-more-queries", "cls")
        page.fill("#edits-more-keys", "30-31")
        change(page, page.locator("#edits-more-form button").click)
        source = explorer.lens.trace(explorer.store(0).picture(2)).pixels
        assert_shows(
            page,
            explorer,
            classlens.AblateNeurons([3, 17], blocks=[5]),
            classlens.AblateNeurons([40], blocks=[2]),
            classlens.SelfOnly(),
            classlens.Patch("attn_out", source=source, blocks=[1, 2]),
            classlens.CutAttention("cls", [30, 31]),
        )
        scope: dict[str, Any] = {}
        page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
        page.locator("#edits-copy-python").click()
        page.wait_for_selector("#edits-code")
        exec(compile(page.locator("#edits-code").input_value(), "copied.py", "exec"), scope)
        for row in page.locator(".edit-class").all():
            logit = float(scope["edited"].model_logits[0, int(str(row.get_attribute("data-class")))])
            assert float(str(row.get_attribute("data-edited"))) == pytest.approx(logit, abs=1e-6)
        page.locator("#edits-copy-command").click()
        page.wait_for_function("() => document.getElementById('edits-code').value.startsWith('classlens inspect ')")


def test_address_holds_the_edits(browser: Browser, server: str, explorer: Explorer) -> None:
    heads = classlens.AblateHeads([0, 2], blocks=[3])
    with opened(browser, server, "#edits=AblateHeads:heads=0,2:blocks=3;NoCls&block=2") as page:
        assert_shows(page, explorer, heads, classlens.NoCls())
        assert page.locator(part(3, "2")).get_attribute("aria-pressed") == "true"
        assert page.locator('[data-switch="NoCls"]').get_attribute("aria-pressed") == "true"
        change(page, page.locator('[data-switch="NoCls"]').click)
        link = page.evaluate("location.href")
        assert "block=2" in link, "the state of other parts stays"
        change(page, lambda: page.evaluate("location.hash = 'edits=SelfOnly'"))
        assert_shows(page, explorer, classlens.SelfOnly())
        change(page, lambda: page.go_back(wait_until="commit"))
        assert_shows(page, explorer, heads)
        change(page, lambda: page.go_forward(wait_until="commit"))
        assert_shows(page, explorer, classlens.SelfOnly())
    with opened(browser, server, link[link.index("#") :]) as page:
        assert_shows(page, explorer, heads)


def test_refused_edit_is_said_in_place(browser: Browser, server: str, explorer: Explorer) -> None:
    with opened(browser, server, "#edits=AblateHeads:heads=9", refused=True) as page:
        assert shown_plan(page) == "error"
        assert "Head 9 does not exist" in page.locator("#edits-error").inner_text()
        assert page.locator("#edits-result").is_hidden()
        change(page, page.locator(".edit-remove").click)
        assert page.locator("#edits-error").is_hidden()
        change(page, cell(page, 0).click)
        assert "keep [CLS]" in page.locator("#edits-error").inner_text()
        change(page, page.locator("#edits-undo").click)
        change(page, page.locator(part(0, "0")).click)
        assert_shows(page, explorer, classlens.AblateHeads([0], blocks=[0]))
        page.fill("#edits-units", "4,117")
        page.keyboard.press("Enter")
        assert "write BLOCK.UNIT" in page.locator("#edits-error").inner_text()


def test_late_answer_is_dropped(browser: Browser, server: str, explorer: Explorer) -> None:
    with opened(browser, server) as page:
        page.evaluate(
            """() => {
              const original = window.fetch;
              let calls = 0;
              window.fetch = async (address, options = {}) => {
                const edit = String(address).endsWith('/edit');
                // The first answer is kept back, and no abort reaches it.
                const answer = await original(address, edit ? { ...options, signal: undefined } : options);
                if (edit && calls++ === 0) await new Promise((resolve) => { window.release = resolve; });
                return answer;
              };
            }"""
        )
        page.locator(part(1, "0")).click()
        page.wait_for_function("() => window.release !== undefined")
        change(page, page.locator(part(2, "3")).click)
        page.evaluate("window.release()")
        page.wait_for_timeout(200)
        assert_shows(page, explorer, classlens.AblateHeads([0], blocks=[1]), classlens.AblateHeads([3], blocks=[2]))


@pytest.mark.parametrize("width", [390, 1920])
def test_section_fits_and_keyboard_reaches_the_matrix(browser: Browser, server: str, width: int) -> None:
    hash_ = "#edits=KeepTokens:mask=0-20,22,24,26,28,30,32,34,36,38,40,42,44,46,48-64;NoCls"
    with opened(browser, server, hash_, viewport={"width": width, "height": 900}) as page:
        shown_plan(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator(part(0, "0")).focus()
        for key in ("ArrowDown", "ArrowRight"):
            page.keyboard.press(key)
        change(page, lambda: page.keyboard.press("Enter"))
        assert page.locator(part(1, "1")).get_attribute("aria-label") == "Block 1, head 1, replaced by zero"
