"""The registry of edits, and all that follows from it."""

from __future__ import annotations

import dataclasses

import pytest

import classlens
from classlens import Edit
from classlens.forward.edits.registry import EDITS
from tests.forward.edits.test_families import kinds_of


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


def test_a_new_edit_is_known_at_once() -> None:
    EDITS.register("Mine", classlens.SelfOnly)
    try:
        assert EDITS["Mine"] is classlens.SelfOnly
    finally:
        EDITS.unregister("Mine")
    assert "Mine" not in EDITS


def test_every_edit_is_tried_on_every_implementation() -> None:
    assert set(kinds_of()) == set(EDITS)
