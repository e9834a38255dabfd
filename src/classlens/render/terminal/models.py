"""The list of models: what was asked for, as a table or as records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table

from classlens.errors import ClasslensError, suggestion
from classlens.models.families import Known


def filter_models(known: Iterable[Known], family: str | None, search: str | None) -> list[Known]:
    """The models of a family in whose name, library and family all words are found, whatever their case.

    Raises ClasslensError for an unknown family, and where nothing is found.
    """
    models = list(known)
    if family is not None:
        families = sorted({model.family for model in models})
        models = [model for model in models if model.family.lower() == family.lower()]
        if not models:
            hint = suggestion(family, families)
            raise ClasslensError(f"family {family!r} is not known{hint}; the families are {', '.join(families)}")
    words = (search or "").lower().split()
    found = [model for model in models if all(word in _text(model) for word in words)]
    if not found:
        where = "" if family is None else f" of family {family!r}"
        hint = suggestion(str(search), [model.name for model in models]) or "; give fewer or shorter words"
        raise ClasslensError(f"no model{where} matches the search {search!r}{hint}")
    return found


def listing(models: Iterable[Known]) -> Table:
    """One row a model."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("name", overflow="fold", ratio=1)
    for column in ("library", "family", "classes", "weights"):
        table.add_column(column)
    for model in models:
        table.add_row(model.name, model.library, model.family, _classes(model), model.weights)
    return table


def records(models: Iterable[Known]) -> list[dict[str, Any]]:
    """The same for machines."""
    return [asdict(model) for model in models]


def _classes(model: Known) -> str:
    if model.classes is None:
        return "your prompts" if model.library == "open_clip" else "its own"
    return str(model.classes) if model.classes else "none: needs num_classes=N and a checkpoint"


def _text(model: Known) -> str:
    return f"{model.name} {model.library} {model.family}".lower()
