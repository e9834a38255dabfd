"""Names and texts of others, in what people open: one function for each medium.

A name of a model, class, image or store may hold anything: markup, a formula, codes that move a cursor, characters that
turn the direction of the text, line breaks. Each function shows such a name as it is written, and lets nothing act.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

_JOINERS = "\u200c\u200d"  # within words of some scripts, and within emoji
_FORMULA = tuple("=+-@＝＋－＠")
_MARKDOWN = re.compile(
    r"[\\`*~|$&]"  # wherever they stand
    r"|(?<![^\W_])_|_(?![^\W_])"  # emphasis; within a word it is none
    r"|<(?=[A-Za-z/!?])"  # a tag
    r"|\](?=[(\[:])"  # a link
    r"|:(?=//)|(?<=www)\.|(?<=\w)@(?=\w)"  # an address that becomes a link
    r"|^[#>=+-]"  # a heading, a quotation, a list
)
_NUMBERED = re.compile(r"^(\d{1,9})([.)])(?=\s|$)")


def visible(value: T) -> T:
    """A text on one line, with escapes in the place of characters that act and are not seen; or all texts of a record.

    Examples:
        >>> visible("cat\\x1b[2J\\n")
        'cat\\\\x1b[2J\\\\n'
    """
    shown: Any = value
    if isinstance(value, str) and not value.isprintable():
        shown = "".join(char if char.isprintable() or char in _JOINERS else _escape(char) for char in value)
    elif isinstance(value, Mapping):
        shown = {visible(key): visible(item) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        # Records hold millions of numbers.
        shown = [item if type(item) in (int, float) else visible(item) for item in value]
    return shown  # type: ignore[no-any-return]


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def html_text(text: object) -> str:
    """For HTML, in elements and in quoted attributes."""
    return html.escape(visible(str(text)))


def markdown_text(text: object) -> str:
    """For Markdown: a paragraph, a cell of a table, or an item of a list.

    Examples:
        >>> markdown_text("a|b <img src=x> [c](d)")
        'a\\\\|b \\\\<img src=x> [c\\\\](d)'
    """
    shown = visible(" ".join(str(text).split()))
    return _NUMBERED.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\g<0>", shown))


def csv_text(value: Any) -> Any:
    """For a cell of a table that a spreadsheet opens: no text begins a formula; other values are as they are."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def say(text: str, *, style: str | None = None, stderr: bool = False) -> None:
    """Print a line to the terminal."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, soft_wrap=True, emoji=False)
    console.print(visible(text), markup=False, style=style)
