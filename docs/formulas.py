"""Formulas as MathML when the site is built: `$…$` within a line, `$$…$$` on their own. No script, no network."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', flags=re.DOTALL)
"""The HTML of a formula by pymdownx.arithmatex."""

SPACED = re.compile(r"\\(log|ln|exp)(?= *[\w\\])")
"""Names of functions before an argument without brackets, which MathML sets without a space."""


def mathml(formula: re.Match[str]) -> str:
    block = formula[2] == "["
    latex = SPACED.sub(r"\\\1\\,", unescape(formula[3]).strip()).replace(r"\_", "_")
    math: str = convert(latex, display="block" if block else "inline")
    return f'<div class="formula">{math}</div>' if block else math


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    return FORMULA.sub(mathml, html)
