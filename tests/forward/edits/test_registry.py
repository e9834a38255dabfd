"""The registry of edits, and all that follows from it."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest

import classlens
from classlens import Edit
from classlens.forward.edits.registry import EDITS
from tests.forward.edits.test_families import kinds_of

PAGE = Path(__file__).parents[3] / "docs" / "edits.md"


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_is_public_and_describes_itself(name: str) -> None:
    edit = EDITS[name]
    assert edit.__name__ == name
    assert issubclass(edit, Edit)
    assert getattr(classlens, name) is edit
    assert name in classlens.__all__
    assert edit.label
    assert edit.about == edit.about.strip(" .")
    assert "\n" not in edit.about
    assert dataclasses.is_dataclass(edit)


def usage(name: str) -> str:
    parameters = inspect.signature(EDITS[name]).parameters.values()
    arguments = [each.name if each.default is each.empty else f"{each.name}={each.default!r}" for each in parameters]
    return f"{name}({', '.join(arguments)})"


def test_the_page_lists_every_edit() -> None:
    table = [f"| `{usage(name)}` | {edit.about} |" for name, edit in EDITS.items()]
    page = PAGE.read_text(encoding="utf-8")
    shown = [line for line in page.splitlines() if line.startswith("| `")]
    assert shown == table, "docs/edits.md needs these rows:\n" + "\n".join(table)


def test_a_new_edit_is_known_at_once() -> None:
    EDITS.register("Mine", classlens.SelfOnly)
    try:
        assert EDITS["Mine"] is classlens.SelfOnly
    finally:
        EDITS.unregister("Mine")
    assert "Mine" not in EDITS


def test_every_edit_is_tried_on_every_implementation() -> None:
    assert set(kinds_of()) == set(EDITS)
