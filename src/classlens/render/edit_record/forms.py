"""The edits as a page offers them: options of each, and the control that stands for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    """Every edit by name: label, description, control and options; in the order of the registry."""
    return [
        {
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
                for option in edit_options(name).values()
            ],
        }
        for name in EDITS
        if CONTROLS.get(name) != "switch" or "cls" in view.prefix or name != "NoCls"
    ]
