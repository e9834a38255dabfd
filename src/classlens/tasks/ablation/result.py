"""The result of an ablation: its tables, from the arrays of its groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import xarray as xr

from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.engine.progress import MeasureResult
from classlens.renderers import Shown
from classlens.tasks.ablation import tables
from classlens.tasks.ablation.plan import Plan
from classlens.tasks.ablation.scores import HEAD_SCORES
from classlens.tasks.ablation.without import variant_text

if TYPE_CHECKING:
    import pandas as pd

_PREDICTED = ("predicted", "predicted_without")


@dataclass(frozen=True, eq=False)
class AblateResult(Shown):
    """Tables of an ablation. A notebook shows how well each score agrees with it, and the held-out tests.

    Args:
        effects: mean score of every head, with columns ``images, score, block, head, value, low, high, number``;
            ``images`` is ``all``, ``right``, ``wrong`` or the name of a tested class, ``number`` that of images.
        agreement: Spearman's correlation over heads of each score with ablation, with columns ``score, measure, value,
            low, high, number``; ``measure`` is ``mean`` (of means over images), ``class mean`` (of tested classes) or
            ``image``.
        held_out: what the testing half loses without heads chosen on the other half, with columns ``measure, class,
            score, parts, images, number, intact, drop, low, high, beyond_chance, beyond_low, beyond_high``; ``measure``
            is ``accuracy`` or ``log odds``, of each image's label.
        pairs: what tips confusions in the choosing half, with columns ``label, rival, part, confused, right,
            difference, low, high, p, p_holm``.
        pair_tests: predictions of the testing half without the parts that tip a confusion, with columns ``label,
            rival, parts, images, number, value, low, high, chance, beyond_chance, beyond_low, beyond_high``; ``value``
            is the share that is predicted as the label, ``chance`` that without random parts, as many heads and MLPs.
        settings: number of heads, random sets and confusions, the seed, and what takes the place of activations.
        run: summary of the run that wrote the store.
        statistics: settings of the intervals.
    """

    _renderer: ClassVar[str] = "ablation"

    effects: pd.DataFrame
    agreement: pd.DataFrame
    held_out: pd.DataFrame
    pairs: pd.DataFrame
    pair_tests: pd.DataFrame
    settings: Mapping[str, Any]
    run: MeasureResult
    statistics: Statistics


def result_of(
    effects: xr.Dataset,
    plan: Plan,
    without: xr.Dataset,
    names: Sequence[str],
    settings: Mapping[str, Any],
    run: MeasureResult,
    statistics: Statistics,
) -> AblateResult:
    """Tables from the groups of a store, each of measured images with a label."""
    labels, predicted = effects["label"].values, effects["predicted"].values
    scores = {name: effects[name].values for name in HEAD_SCORES}
    groups = dict(zip(tables.GROUPS, (labels >= 0, labels == predicted, labels != predicted), strict=True))
    groups |= {names[label]: labels == label for label in plan.chosen}
    agreement = tables.agreement_rows(scores, labels, plan.chosen, statistics)
    return AblateResult(
        effects=tables.frame(tables.effect_rows(scores, groups, statistics), tables.EFFECT_COLUMNS),
        agreement=tables.frame(agreement, tables.AGREEMENT_COLUMNS),
        held_out=tables.frame(_held_out(plan, without, names, statistics), tables.HELD_OUT_COLUMNS),
        pairs=tables.frame(iter(plan.pair_rows), tables.PAIR_COLUMNS),
        pair_tests=tables.frame(_pair_tests(plan, without, names, statistics), tables.PAIR_TEST_COLUMNS),
        settings=settings,
        run=run,
        statistics=statistics,
    )


def _held_out(
    plan: Plan, without: xr.Dataset, names: Sequence[str], statistics: Statistics
) -> Iterator[dict[str, Any]]:
    labels = without["label"].values
    measures = {
        "accuracy": [without[name].values == _column(labels, without[name]) for name in _PREDICTED],
        "log odds": [without[name].values for name in ("log_odds", "log_odds_without")],
    }
    for measure, (intact, each) in measures.items():
        intact, each = intact.astype(np.float64), each.astype(np.float64)
        drops = {parts: intact - each[:, column] for column, parts in enumerate(plan.variants)}
        rows = tables.held_out_rows(drops, intact, labels, plan.chosen, plan.chance, names, statistics)
        yield from ({"measure": measure, **row} for row in rows)


def _column(labels: Array, values: xr.DataArray) -> Array:
    return labels if values.ndim == 1 else labels[:, None]


def _pair_tests(
    plan: Plan, without: xr.Dataset, names: Sequence[str], statistics: Statistics
) -> Iterator[dict[str, Any]]:
    labels, predicted = without["label"].values, without["predicted"].values
    is_label = (without["predicted_without"].values == labels[:, None]).astype(np.float64)
    column = {parts: index for index, parts in enumerate(plan.variants)}
    for pair, parts in plan.tipping.items():
        by_chance = is_label[:, [column[random] for random in plan.controls[pair]]].mean(axis=1)
        for images, prediction in (("confused", pair.rival), ("right", pair.label)):
            chosen = (labels == pair.label) & (predicted == prediction)
            yield {
                "label": names[pair.label],
                "rival": names[pair.rival],
                "parts": variant_text(parts),
                "images": images,
                **tables.against_chance(is_label[chosen, column[parts]], by_chance[chosen], statistics),
            }
