"""Notebooks that results are shown in: a page with styles of its own, and what stands in a result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE = (
    "</title></svg><img src=x onerror=alert(1)>",
    '"><b id="injected">\'&amp;',
    "猫 ñ \u2028 \u202e",
    "a\x00b\x1b[2J",
)
# What style sheets of notebooks do to all elements of a kind, and worse.
STYLES = """
  * { color: rgb(200, 0, 0); background: rgb(0, 200, 0); font: 40px serif; text-align: right; border: 3px solid red; }
  div, li, ol { display: none; float: right; margin: 30px; width: 5px; }
  iframe, svg, img, table { display: none; width: 3px; height: 3px; max-width: 3px; max-height: 3px; opacity: 0; }
  .host { color: rgb(1, 2, 3); display: block; font-size: 17px; }
"""


def elements(html: str) -> ElementTree.Element:
    """The elements of a result, which is well-formed: a name that became markup would break it."""
    return ElementTree.fromstring(f"<div>{html}</div>")


def titles(html: str) -> list[str]:
    """Texts of the parts of charts that a pointer shows, in their order."""
    return ["".join(title.itertext()) for title in elements(html).iter("title")]


def texts(html: str) -> str:
    """All text of a result."""
    return " ".join(elements(html).itertext())


def cells(html: str) -> list[list[str]]:
    """Texts of the cells of all tables, row by row."""
    rows = elements(html).iter("tr")
    return [
        ["".join(cell.itertext()) for cell in row if cell.tag == "td"] for row in rows if row.find("td") is not None
    ]


def show(page: Page, folder: Path, html: str, *, styles: str = STYLES, body: str = "") -> None:
    """Put a result into a page as notebooks do, by a script: scripts within it do not run."""
    host = (
        f"<!doctype html><meta charset=utf-8><style>{styles}</style><body style='margin:8px;{body}'>"
        "<p class=host>Before</p><section id=cell></section>"
    )
    (folder / "host.html").write_text(host, encoding="utf-8")
    page.goto((folder / "host.html").as_uri())
    page.evaluate("html => { document.getElementById('cell').innerHTML = html; }", html)
