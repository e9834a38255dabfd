"""The list of models, filtered, as a table or as records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from classlens.errors import ClasslensError, suggestion
from classlens.models.adapter import ModelEntry
from classlens.models.registry import ADAPTERS
from classlens.text import visible


def filter_models(entries: Iterable[ModelEntry], family: str | None, search: str | None) -> list[ModelEntry]:
    """The models of a family whose name, library and family contain all words, in any case.

    Raises ClasslensError for an unknown family, and for a search without results.
    """
    models = list(entries)
    if family is not None:
        families = sorted({model.family for model in models})
        models = [model for model in models if model.family.lower() == family.lower()]
        if not models:
            hint = suggestion(family, families)
            raise ClasslensError(f"family {family!r} is not known{hint}; the families are {', '.join(families)}")
    words = (search or "").lower().split()
    matches = [model for model in models if all(word in _text(model) for word in words)]
    if not matches:
        where = "" if family is None else f" of family {family!r}"
        hint = suggestion(str(search), [model.name for model in models]) or "; give fewer or shorter words"
        raise ClasslensError(f"no model{where} matches the search {search!r}{hint}")
    return matches


def model_table(models: Iterable[ModelEntry]) -> Table:
    """A table with one row for each model."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("name", overflow="fold", ratio=1)
    for column in ("library", "family", "classes", "weights"):
        table.add_column(column)
    for model in models:
        table.add_row(*map(escape, visible([model.name, model.library, model.family, _classes(model), model.weights])))
    return table


def model_records(models: Iterable[ModelEntry]) -> list[dict[str, Any]]:
    """The models as JSON records."""
    return [asdict(model) for model in models]


def _classes(model: ModelEntry) -> str:
    if model.classes is None:
        return ADAPTERS[model.library].classes_from
    return str(model.classes) if model.classes else "none: needs num_classes=N and a checkpoint"


def _text(model: ModelEntry) -> str:
    return f"{model.name} {model.library} {model.family}".lower()
