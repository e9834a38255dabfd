"""Formulas of the documentation become MathML, all of them."""

from __future__ import annotations

import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"
MATH = "{http://www.w3.org/1998/Math/MathML}"


def rendered(text: str) -> str:
    """A page as the site renders it, as far as formulas go."""
    pytest.importorskip("latex2mathml", reason="latex2mathml comes with the extra docs")
    pytest.importorskip("pymdownx", reason="pymdownx comes with the extra docs")
    from markdown import markdown

    options = {"pymdownx.arithmatex": {"generic": True}}
    html = markdown(
        text, extensions=["tables", "pymdownx.superfences", "pymdownx.arithmatex"], extension_configs=options
    )
    page: str = runpy.run_path(str(DOCS / "formulas.py"))["on_page_content"](html)
    return page


def formulas(html: str) -> list[ElementTree.Element]:
    parts = html.split("<math ")[1:]
    return [ElementTree.fromstring("<math " + part.partition("</math>")[0] + "</math>") for part in parts]


def test_a_formula_becomes_mathml() -> None:
    inline, block = formulas(rendered("The share $1 - \\text{rank} / C$ of\n\n$$\\frac{a\\_b < c}{\\log p}$$\n"))
    assert "".join(inline.itertext()) == "1−rank/C"
    assert (inline.get("display"), block.get("display")) == ("inline", "block")
    (fraction,) = block.iter(f"{MATH}mfrac")
    assert "".join(fraction[1].itertext()) == "logp"
    assert fraction[1].find(f".//{MATH}mspace") is not None, "a space between log and its argument"


@pytest.mark.parametrize("page", sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")))
def test_no_formula_is_left_as_latex(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    html = rendered(text)
    assert "arithmatex" not in html
    for formula in formulas(html):
        assert not set("\\$&") & set("".join(formula.itertext())), "".join(formula.itertext())
    if page == "method.md":
        assert len(formulas(html)) > 60
