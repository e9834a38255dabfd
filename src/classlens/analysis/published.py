"""The paper's published values, and measured values beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from classlens.analysis.analyze import AnalyzeResult
from classlens.analysis.experiments.identifiability import LABELS
from classlens.models.paper import MODELS
from classlens.tasks.tokens.conditions.registry import CLEAN, CONDITIONS

SOURCE = "Vilas, Schaumlöffel and Roig, NeurIPS 2023, arXiv 2310.18969"
REMOVAL = "removal"
"""Values of token removal stand in the scores of this metric; all others stand in the table of an experiment."""


class PublishedValue(NamedTuple):
    """One published value: a share from 0 to 1, and the row of our tables that measures the same."""

    model: str
    label: str
    value: float
    experiment: str
    row: Mapping[str, str]
    """The row's values by column."""


class Comparison(NamedTuple):
    """A published value beside the measured one. Without a measured one it is NaN, and ``reason`` says why."""

    published: PublishedValue
    value: float
    low: float
    high: float
    images: int
    reason: str


# Tokens identifiable, images with at least one, top-1 accuracy, in percent, at the last block (4,550 images of
# ImageNet-S; 500 of CIFAR-100 for that model).
_RATES: Mapping[str, tuple[float, float, float]] = {
    "paper:vit-b-32": (60.73, 95.58, 81.71),
    "paper:vit-b-16": (67.04, 97.45, 85.69),
    "paper:vit-l-16": (72.58, 97.12, 86.00),
    "paper:vit-b-16-miil": (78.52, 95.52, 86.26),
    "paper:vit-b-16-cifar100": (90.35, 98.80, 92.00),
    "paper:vit-b-16-refinement": (79.64, 96.26, 84.97),
    "paper:vit-b-16-gap": (52.09, 98.53, 84.13),
}
_TWIN_RATES: Mapping[str, tuple[float, float]] = {"paper:vit-b-32": (0.066, 1.27), "paper:vit-b-16": (0.056, 2.18)}
_MEASURES = ("tokens_identifiable", "images_identifiable", "accuracy")
_B32 = "paper:vit-b-32"
_CUTS: Mapping[str, float] = {"self_only": 0.126, "no_cls": 60.71}
# Kept tokens identifiable when the other tokens are removed, and the same tokens when nothing is.
_REMOVED: Mapping[str, tuple[float, float]] = {"context_removed": (44.70, 71.92), "class_removed": (38.68, 56.24)}
# Area under the curve of token removal, by method: negative, positive.
_REMOVAL_AREAS: Mapping[str, tuple[float, float]] = {
    "class gradient": (0.836, 0.413),
    "Chefer": (0.845, 0.393),
    "linear probe": (0.739, 0.683),
    "random": (0.716, 0.716),
}
REMOVAL_MODELS = (_B32,)
PROBE_METHOD = "stored_rank:condition=probe"
REMOVAL_METHODS: Mapping[str, str] = {
    "class gradient": "class_gradient:loss=double_softmax",  # as the published code has it
    "Chefer": "chefer",
    "linear probe": PROBE_METHOD,
    "random": "random",
}
"""Methods of the published token removal, by their names in `classlens evaluate`."""


def published() -> Iterator[PublishedValue]:
    """All published values, model after model."""
    for model, rates in _RATES.items():
        for measure, percent in zip(_MEASURES, rates, strict=True):
            counting = "image_tokens" if measure == "accuracy" else "reference"
            row = {"condition": CLEAN, "counting": counting, "measure": measure}
            yield PublishedValue(model, LABELS[measure].text, percent / 100, "identifiability", row)
        for measure, percent in zip(_MEASURES, _TWIN_RATES.get(model, ()), strict=False):
            row = {"condition": "random_init", "counting": "reference", "measure": measure}
            label = f"random twin: {LABELS[measure].text}"
            yield PublishedValue(model, label, percent / 100, "identifiability", row)
    counted = {"counting": "reference", "measure": "tokens_identifiable"}
    rate = LABELS["tokens_identifiable"].text
    for condition, percent in _CUTS.items():
        label = f"{CONDITIONS[condition].label}: {rate}"
        yield PublishedValue(_B32, label, percent / 100, "attention_edits", {"condition": condition, **counted})
    for condition, percents in _REMOVED.items():
        labels = (CONDITIONS[condition].label, "the same tokens, nothing removed")
        for tokens_are, label, percent in zip(("edited", "unedited"), labels, percents, strict=True):
            row = {"condition": condition, "tokens_are": tokens_are, **counted}
            yield PublishedValue(_B32, f"{label}: {rate}", percent / 100, "context_removal", row)
    for method, areas in _REMOVAL_AREAS.items():
        for order, area in zip(("negative", "positive"), areas, strict=True):
            label = f"token removal, {method}, {order}: area under the curve"
            yield PublishedValue(_B32, label, area, REMOVAL, {"method": method, "order": order})


def compare(
    analysis: AnalyzeResult,
    problems: Mapping[str, str] | None = None,
    removal: Mapping[str, pd.DataFrame] | None = None,
) -> list[Comparison]:
    """Every published value with the measured one, counted in the same way.

    A model is found by the paper's name or by timm's name of the same weights. ``problems`` says, by model, why it was
    not measured; ``removal`` holds the scores of `classlens evaluate` by model.
    """
    # Reversed, so that the first of equal names wins.
    names = {MODELS[paper].timm: paper for paper in reversed(MODELS) if MODELS[paper].file is None}
    models = {names.get(store["name"], store["name"]): store["model"] for store in reversed(analysis.stores)}
    comparisons = []
    for value in published():
        if value.experiment == REMOVAL:
            row, reason = _removal_row(value, (removal or {}).get(value.model), problems or {})
        else:
            row, reason = _table_row(value, models.get(value.model), analysis, problems or {})
        if row is None:
            row = dict.fromkeys(("value", "low", "high"), float("nan"))
        mean, low, high = (float(row[column]) for column in ("value", "low", "high"))
        comparisons.append(Comparison(value, mean, low, high, int(row.get("images", 0)), reason))
    return comparisons


def _removal_row(value: PublishedValue, scores: pd.DataFrame | None, problems: Mapping[str, str]) -> tuple[Any, str]:
    """The row of the scores of token removal, or why there is none."""
    method = REMOVAL_METHODS[value.row["method"]]
    remedy = f"add --removal and --models {value.model}"
    if method == PROBE_METHOD:
        remedy = f"run `classlens probe` with these images as --test, and add --removal --ranks {value.model}=STORE"
    if scores is None:
        return None, problems.get(value.model, remedy)
    scores = scores[(scores["metric"] == REMOVAL) & (scores["method"] == method)]
    if scores.empty and method == PROBE_METHOD:
        return None, remedy
    rows = scores[scores["measure"] == f"{value.row['order']}_auc_reference"]
    return (None, "no image has such a value") if rows.empty else (rows.iloc[0], "")


def _table_row(
    value: PublishedValue, model: str | None, analysis: AnalyzeResult, problems: Mapping[str, str]
) -> tuple[Any, str]:
    """The row of a table, or why there is none."""
    if model is None:
        return None, problems.get(value.model, f"add --models {value.model}")
    for missing in analysis.missing:
        applies = missing.whole or f"condition {value.row['condition']} " in missing.reason
        if applies and (missing.model, missing.experiment) == (model, value.experiment):
            return None, missing.reason
    if value.experiment not in analysis.tables:
        return None, f"the analysis has no {value.experiment}: run it with all experiments"
    table = analysis.tables[value.experiment]
    rows = table[table["model"] == model]
    for column, cell in value.row.items():
        rows = rows[rows[column] == cell]
    return (None, "no image has such a value") if rows.empty else (rows.iloc[0], "")
