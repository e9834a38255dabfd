"""The values that the paper publishes, as a table to set measured ones beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from classlens.analysis.analyze import Analysis
from classlens.models.paper import MODELS

SOURCE = "Vilas, Schaumlöffel and Roig, NeurIPS 2023, arXiv 2310.18969"


class Published(NamedTuple):
    """One published value: a share from 0 to 1, and where a measured one stands in our tables."""

    model: str
    what: str
    value: float
    experiment: str
    where: Mapping[str, str]


class Compared(NamedTuple):
    """A published value beside the measured one; NaN where there is none, and then ``reason`` says why."""

    published: Published
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
_RANDOM: Mapping[str, tuple[float, float]] = {"paper:vit-b-32": (0.066, 1.27), "paper:vit-b-16": (0.056, 2.18)}
_MEASURES = ("tokens_identifiable", "images_identifiable", "accuracy")
_NAMES = ("tokens identifiable", "images with at least one", "top-1 accuracy")
_B32 = "paper:vit-b-32"
# Area under the curve of token removal, by method: negative, positive.
_REMOVAL: Mapping[str, tuple[float, float]] = {
    "class gradient": (0.836, 0.413),
    "Chefer": (0.845, 0.393),
    "linear probe": (0.739, 0.683),
    "random": (0.716, 0.716),
}
REMOVAL_MODELS = (_B32,)
REMOVAL_METHODS: Mapping[str, str] = {
    "class gradient": "class_gradient:loss=double_softmax",  # as the published code has it
    "Chefer": "chefer",
    "random": "random",
}
"""Methods of the published token removal, as `classlens evaluate` calls them."""


def published() -> Iterator[Published]:
    """All published values, those of one model after another."""
    for model, rates in _RATES.items():
        for measure, name, value in zip(_MEASURES, _NAMES, rates, strict=True):
            counting = "image_tokens" if measure == "accuracy" else "reference"
            where = {"condition": "clean", "counting": counting, "measure": measure}
            yield Published(model, name, value / 100, "identifiability", where)
        for measure, name, value in zip(_MEASURES, _NAMES, _RANDOM.get(model, ()), strict=False):
            where = {"condition": "random_init", "counting": "reference", "measure": measure}
            yield Published(model, f"random twin: {name}", value / 100, "identifiability", where)
    rate = "tokens identifiable"
    for condition, name, value in (
        ("self_only", "image tokens see themselves alone", 0.126),
        ("no_cls", "image tokens do not see [CLS]", 60.71),
    ):
        where = {"condition": condition, "counting": "reference", "measure": "tokens_identifiable"}
        yield Published(_B32, f"{name}: {rate}", value / 100, "attention_edits", where)
    for condition, tokens_are, name, value in (
        ("context_removed", "edited", "context removed", 44.70),
        ("context_removed", "unedited", "the same tokens, nothing removed", 71.92),
        ("class_removed", "edited", "class removed", 38.68),
        ("class_removed", "unedited", "the same tokens, nothing removed", 56.24),
    ):
        where = {"condition": condition, "tokens_are": tokens_are, "counting": "reference"}
        where["measure"] = "tokens_identifiable"
        yield Published(_B32, f"{name}: {rate}", value / 100, "context_removal", where)
    for method, areas in _REMOVAL.items():
        for order, value in zip(("negative", "positive"), areas, strict=True):
            where = {"method": method, "order": order}
            yield Published(_B32, f"token removal, {method}, {order}: area under the curve", value, "removal", where)


def compare(
    analysis: Analysis,
    problems: Mapping[str, str] | None = None,
    removal: Mapping[str, pd.DataFrame] | None = None,
) -> list[Compared]:
    """Each published value beside the measured one of the same model.

        compare(classlens.analyze(["stores/paper-vit-b-32.zarr"]))

    A model is known by the paper's name or by timm's name of the same weights. ``problems`` tells, by model, why it was
    not measured; ``removal`` holds the scores of `classlens evaluate` by model.
    """
    names = {MODELS[paper].timm: paper for paper in reversed(MODELS) if MODELS[paper].file is None}
    stores = {names.get(store["name"], store["name"]): store["model"] for store in reversed(analysis.stores)}
    found = []
    for one in published():
        if one.experiment == "removal":
            value, reason = _removed(one, (removal or {}).get(one.model), problems or {})
        else:
            value, reason = _measured(one, stores.get(one.model), analysis, problems or {})
        row = value if value is not None else {"value": float("nan"), "low": float("nan"), "high": float("nan")}
        low, high = float(row["low"]), float(row["high"])
        found.append(Compared(one, float(row["value"]), low, high, int(row.get("images", 0)), reason))
    return found


def _removed(one: Published, scores: pd.DataFrame | None, problems: Mapping[str, str]) -> tuple[Any, str]:
    """The row of the scores of token removal, or why there is none."""
    method = REMOVAL_METHODS.get(one.where["method"])
    if method is None:
        return None, "this version trains no probes"
    if scores is None:
        return None, problems.get(one.model, f"add --removal and --models {one.model}")
    measure = f"{one.where['order']}_auc_reference"
    rows = scores[(scores["metric"] == "removal") & (scores["method"] == method) & (scores["measure"] == measure)]
    return (None, "no image has such a value") if rows.empty else (rows.iloc[0], "")


def _measured(one: Published, model: str | None, analysis: Analysis, problems: Mapping[str, str]) -> tuple[Any, str]:
    """The row of a table, or why there is none."""
    if model is None:
        return None, problems.get(one.model, f"add --models {one.model}")
    for missing in analysis.missing:
        concerned = missing.whole or f"condition {one.where['condition']} " in missing.reason
        if concerned and (missing.model, missing.experiment) == (model, one.experiment):
            return None, missing.reason
    if one.experiment not in analysis.tables:
        return None, f"the analysis has no {one.experiment}: run it with all experiments"
    table = analysis.tables[one.experiment]
    rows = table[table["model"] == model]
    for column, value in one.where.items():
        rows = rows[rows[column] == value]
    if rows.empty:
        return None, "no image has such a value"
    return rows.iloc[0], ""
