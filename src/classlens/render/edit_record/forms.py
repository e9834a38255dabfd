"""The edits as a page offers them: options of each, and the control that stands for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from classlens.errors import ClasslensError
from classlens.forward.edits.registry import EDITS
from classlens.models.view import ModelView
from classlens.render.edit_record.fields import edit_options

CONTROLS: Mapping[str, str] = {
    "KeepTokens": "brush",
    "NoCls": "switch",
    "SelfOnly": "switch",
    "AblateHeads": "matrix",
    "AblateSublayer": "matrix",
    "AblateNeurons": "units",
    "Patch": "patch",
}
"""Edits with a control of their own; every other one has a form made of its options."""


def edit_forms(view: ModelView) -> list[dict[str, Any]]:
    """Every edit that plain values can give: label, description, control and options; in the order of the registry."""
    names = [name for name in EDITS if name != "NoCls" or "cls" in view.prefix]
    return [form for form in map(_form, names) if form is not None]


def _form(name: str) -> dict[str, Any] | None:
    """The form of an edit; None for one that Python alone can give."""
    try:
        options = edit_options(name).values()
    except ClasslensError:
        return None
    return {
        "name": name,
        "label": EDITS[name].label,
        "about": EDITS[name].about,
        "control": CONTROLS.get(name, "form"),
        "options": [
            {
                "name": option.name,
                "kind": option.kind,
                "required": option.required,
                "default": option.default if isinstance(option.default, str | bool | int | float) else None,
                "choices": list(option.choices),
            }
            for option in options
        ],
    }
