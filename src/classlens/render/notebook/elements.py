"""Elements of HTML for notebooks: texts are escaped, and styles stand on the elements that they are for.

A notebook puts results into its own page, where a style sheet of a result would change the notebook. Text has the
notebook's color, and backgrounds are transparent, so that both fit light and dark ones.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from PIL import Image

from classlens.text import html_text

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif"
_PLAIN = "margin:0;padding:0;border:0;background:none;color:inherit;font:inherit;text-align:left;float:none;"
_MUTED = "opacity:0.75;font-size:13px;"
_CELL = "padding:2px 14px 2px 0;vertical-align:baseline;overflow-wrap:break-word;font-size:13px;font-weight:400;"
_SMALL_PICTURE = 96
_LONG = 26
"""Letters of a text that a cell may break."""


class Markup(str):
    """HTML that is complete; any other text is escaped where it becomes part of an element."""


def element(tag: str, *children: object, style: str = "", **attributes: Any) -> Markup:
    """An element of HTML or SVG; an attribute ``text_anchor`` is ``text-anchor``, and one of None is left out.

    Examples:
        >>> element("p", "a < b", title="\\"x\\"")
        '<p title="&quot;x&quot;">a &lt; b</p>'
    """
    named = {**({"style": style} if style else {}), **attributes}
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html_text(_number(value))}"'
        for name, value in named.items()
        if value is not None
    )
    return Markup(f"<{tag}{shown}>{joined(children)}</{tag}>")


def joined(parts: Iterable[object]) -> Markup:
    """Markup one after another, and other texts escaped."""
    return Markup("".join(part if isinstance(part, Markup) else html_text(part) for part in parts))


def _number(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def block(*children: object, style: str = "", tag: str = "div", **attributes: Any) -> Markup:
    """A plain element, whatever the style sheet of the notebook says of its kind."""
    return element(tag, *children, style=f"{_PLAIN}display:block;{style}", **attributes)


def result(title: object, *children: object) -> Markup:
    """A whole result with its title."""
    heading = block(title, style="font-weight:600;margin:0 0 6px;overflow-wrap:anywhere;")
    return block(heading, *children, style=f"font:14px/1.45 {FONT};max-width:980px;overflow:hidden;")


def note(*children: object) -> Markup:
    return block(*children, style=f"{_MUTED}margin:4px 0 0;max-width:80ch;overflow-wrap:anywhere;")


def code(text: str) -> Markup:
    return element("code", text, style="font:12px ui-monospace,monospace;color:inherit;background:none;padding:0;")


def columns(*children: object) -> Markup:
    """Parts beside one another where there is room."""
    return block(*children, style="display:flex;flex-wrap:wrap;gap:10px 22px;align-items:flex-start;margin:0 0 14px;")


def picture(image: Image.Image, alt: str, *, width: int = 116) -> Markup:
    """A picture of few pixels as PNG that shows them as they are, a larger one as JPEG of twice ``width``."""
    buffer, small = io.BytesIO(), max(image.size) <= _SMALL_PICTURE
    shown = image.convert("RGB")
    if small:
        shown.save(buffer, format="PNG", optimize=True)
    else:
        shown.thumbnail((2 * width, 2 * width))
        shown.save(buffer, format="JPEG", quality=85)
    source = f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    style = f"width:{width}px;max-width:none;height:auto;display:block;margin:0;border:0;border-radius:4px;"
    return Markup(
        f'<img src="{source}" alt="{html_text(alt)}" width="{width}" '
        f'style="{style}{"image-rendering:pixelated;" if small else ""}"/>'
    )


def percent(share: float) -> str:
    """A share as the pages of classlens show it.

    Examples:
        >>> percent(0.0004), percent(0.043), percent(0.9995), percent(1.0)
        ('<0.1%', '4.3%', '>99.9%', '100%')
    """
    value = 100 * share
    if 0 < value < 0.1:
        return "<0.1%"
    if 99.9 < value < 100:
        return ">99.9%"
    return f"{value:.1f}".removesuffix(".0") + "%" if value < 10 else f"{value:.0f}%"


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign; empty for one that is not known."""
    return "" if math.isnan(value) else f"{value:+.{digits}f}".replace("-", "−")


def bar(share: float, color: str) -> Markup:
    """A bar of a share of its row."""
    fill = block(style=f"width:{100 * min(max(share, 0.0), 1.0):.2f}%;height:100%;background:{color};")
    return block(fill, style="height:10px;flex:1 1 60px;min-width:40px;outline:1px solid rgb(128 128 128 / 0.4);")


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    """A table that scrolls on its own where it is wide; cells that are numbers in words stand right."""
    head = [element("th", text, style=f"{_PLAIN}{_CELL}{_MUTED}", scope="col") for text in header]
    body = [_row([element("td", cell, style=f"{_PLAIN}{_CELL}{_kind(cell)}") for cell in row]) for row in rows]
    title = element(
        "caption", caption, style=f"{_PLAIN}caption-side:top;font-weight:600;font-size:13px;padding:0 0 2px;"
    )
    whole = element(
        "table",
        title,
        element("thead", _row(head), style=_PLAIN),
        element("tbody", *body, style=_PLAIN),
        style=f"{_PLAIN}display:table;border-collapse:collapse;width:auto;table-layout:auto;",
    )
    return block(whole, style="overflow-x:auto;max-width:100%;margin:0 0 10px;")


def _row(cells: Iterable[Markup]) -> Markup:
    return element("tr", *cells, style=f"{_PLAIN}border-bottom:1px solid rgb(128 128 128 / 0.3);")


def _kind(cell: object) -> str:
    """The style of a cell: numbers stand right, and only long texts take several lines."""
    if isinstance(cell, Markup) or not isinstance(cell, str):
        return "white-space:nowrap;"
    if cell[:1] in {*"0123456789+−"}:
        return "text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap;"
    return "white-space:normal;" if len(cell) > _LONG else "white-space:nowrap;"
