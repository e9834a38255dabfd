"""The record of one gallery: plain values of JSON, column by column."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from classlens.analysis.gallery import GalleryTable
from classlens.analysis.gallery_columns import COLUMNS
from classlens.core.arrays import Array
from classlens.data.dataset import Dataset
from classlens.render.gallery_record.questions import QUESTIONS, Question
from classlens.text import visible

_DIGITS = 4
"""Significant digits of a number."""
_BINS = 20
_TAILS = (0.005, 0.995)
"""Shares of photos between which the bars of a histogram lie; the first and last bar take all beyond."""
_CORRECT = {"label": "Right or wrong", "about": "whether the prediction is the label"}


def gallery_record(
    table: GalleryTable,
    attrs: Mapping[str, Any],
    *,
    store: str,
    dataset: Dataset | None = None,
    total: int | None = None,
    chosen: Sequence[int] | None = None,
    opens: bool = True,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """The photos of a store as a page shows them.

    ``attrs`` are the attributes of the store, ``store`` its path or URL, ``total`` its number of images, measured or
    not. ``dataset`` holds the photos; None for a gallery without. ``chosen``: indices in the store of the photos that
    are shown, by default all. ``opens``: whether photos have pages of their own. ``notes`` stand below the title.
    """
    images = table.images
    if chosen is not None:
        images = images[images["index"].isin(list(chosen))].reset_index(drop=True)
    names = [str(name) for name in images["image"]]
    shown = [visible(name) for name in names]
    missing = dict(table.missing)
    if images["correct"].isna().all():
        missing["correct"] = missing["confusion"] = "the images have no labels: measure a data set that has them"
    return {
        "model": visible(str(attrs.get("model", "model"))),
        "data": visible(str(attrs.get("data", ""))),
        "split": visible(str(attrs.get("split") or "")),
        "total": len(names) if total is None else total,
        "classes": visible(list(table.class_names)),
        "photos": dataset is not None,
        "opens": opens,
        "notes": visible(list(notes)),
        "index": images["index"].tolist(),
        "names": shown,
        "label": images["label"].tolist(),
        "prediction": images["prediction"].tolist(),
        "correct": [None if value != value else int(value) for value in images["correct"]],
        "confusion": [None if value != value else int(value) for value in images["confusion"]],
        "columns": {name: _column(name, images[name]) for name in COLUMNS if name in images},
        "correct_column": _CORRECT,
        "missing": [[COLUMNS[name].label, reason] for name, reason in missing.items() if name in COLUMNS],
        "questions": [_question(name, question, missing) for name, question in QUESTIONS.items()],
        "list": _list_facts(names, table.class_names, dataset),
        "command": _command(attrs, store),
    }


def _column(name: str, values: pd.Series[float]) -> dict[str, Any]:
    """Numbers of a few digits, None for those that are not known, and the edges of their histogram."""
    column = COLUMNS[name]
    rounded = [_rounded(value) for value in values.tolist()]
    known = np.array([value for value in rounded if value is not None])
    return {
        "label": column.label,
        "about": column.about,
        "kind": column.kind,
        "values": rounded,
        "edges": _edges(known, column.kind),
    }


def _rounded(value: float) -> float | int | None:
    if not np.isfinite(value):
        return None
    number = float(f"{value:.{_DIGITS}g}")
    return int(number) if number.is_integer() else number


def _edges(known: Array, kind: str) -> list[float | int]:
    """Borders between the bars of a histogram, the outer ones included: a bar holds its lower border."""
    if not len(known):
        return []
    low, high = (float(np.quantile(known, tail)) for tail in _TAILS)
    if kind == "share":
        low, high = 0.0, 1.0
    if kind == "whole":
        low, high = float(np.floor(low)), float(np.ceil(high)) + 1
        step = max(1, int(np.ceil((high - low) / _BINS)))
        return [int(edge) for edge in np.arange(low, high + step, step)]
    edges = sorted({_rounded(edge) or 0 for edge in np.linspace(low, high, _BINS + 1)})
    # Values that differ by less than the digits shown share a bar.
    return edges if len(edges) > 1 else [edges[0], edges[0] + 1]


def _question(name: str, question: Question, missing: Mapping[str, str]) -> dict[str, Any]:
    reason = next((missing[column] for column in question.columns if column in missing), None)
    return {
        "name": name,
        "label": question.label,
        "about": question.about,
        "sort": question.sort,
        "falling": question.falling,
        "color": question.color,
        "where": [list(condition) for condition in question.where],
        "missing": reason,
    }


def _list_facts(names: Sequence[str], class_names: Sequence[str], dataset: Dataset | None) -> dict[str, Any]:
    """Paths and classes as ``list:FILE`` takes them: ``root/name``, but for the photos of ``paths``.

    ``paths`` holds a path by position, None for a photo without a file. ``classes``: names as they are, where the page
    shows them otherwise.
    """
    if dataset is None:
        return {"reason": "the photos are not at hand: give them with --data"}
    positions = {name: index for index, name in enumerate(dataset.names)}
    files = [dataset.file(positions[name]) if name in positions else None for name in names]
    if all(file is None for file in files):
        return {"reason": "the photos of this data are no files of their own, which a list could name"}
    root = next(
        (str(file)[: -len(name)] for name, file in zip(names, files, strict=True) if str(file).endswith(f"/{name}")), ""
    )
    paths = {
        str(position): None if file is None else str(file)
        for position, (name, file) in enumerate(zip(names, files, strict=True))
        if file is None or str(file) != root + visible(name)
    }
    classes = {str(index): name for index, name in enumerate(class_names) if visible(name) != name}
    return {"reason": None, "root": root, "paths": paths, "classes": classes}


def _command(attrs: Mapping[str, Any], store: str) -> str:
    """The command that measures a selection."""
    out = Path(store.rstrip("/")).stem
    command = ["classlens", "measure", "--model", str(attrs.get("model", "model")), "--data", "list:selection.txt"]
    return visible(shlex.join([*command, "--out", f"{out}-selection.zarr"]))
