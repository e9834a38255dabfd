"""Two measurements of the same images, side by side: before and after fine-tuning, or two models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from classlens.analysis.comparison.heads import head_tables
from classlens.analysis.comparison.measures import summary_table, trajectory_table
from classlens.analysis.comparison.pairing import By, Pairing, pair
from classlens.analysis.comparison.predictions import class_table, flip_table, image_table, kinds
from classlens.analysis.comparison.tables import KINDS, TABLES
from classlens.analysis.measured_store import MeasuredStore
from classlens.core.arguments import AnyPath
from classlens.core.path_arguments import checked_with_home
from classlens.core.stats import Statistics
from classlens.extras import require_extras_of


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Two measurements of the same images, side by side. Differences are the second minus the first.

    Attributes:
        summary: one row per measure of all images: accuracy, calibration error, confidence, entropy, margin,
            commitment, and share of image tokens with the class on top.
        classes: one row per class with images, from the largest loss of accuracy to the largest gain.
        images: one row per image, those first whose right prediction was broken, then those that were fixed.
        flips: one row per label and pair of predictions that differ, the most frequent first.
        heads: one row per head and MLP, by how much its contribution to the label changed; no row where a store has no
            attribution, or the models have other blocks or heads.
        head_classes: the classes in which each of them changed most.
        trajectory: share of right answers after each depth.
        attrs: ``first`` and ``second``: facts of both stores (name, model, weights, store, data, split, classes,
            blocks, images, and images of this store alone). ``images``: number of images in common; ``matched_by``:
            ``"content"`` or ``"name"``; ``labeled_images``, and ``other_labels`` of images to which the stores give
            different labels; ``common_classes``; numbers of ``broken``, ``fixed``, ``changed`` and ``same``
            predictions; ``missing``: why a table is empty; ``statistics``: settings of the intervals.
    """

    summary: pd.DataFrame
    classes: pd.DataFrame
    images: pd.DataFrame
    flips: pd.DataFrame
    heads: pd.DataFrame
    head_classes: pd.DataFrame
    trajectory: pd.DataFrame
    attrs: Mapping[str, Any]

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name."""
        return {name: getattr(self, name) for name in TABLES}

    def __repr__(self) -> str:
        names = " and ".join(repr(self.attrs[side]["name"]) for side in ("first", "second"))
        images = self.attrs["images"]
        text = f"{images:,} image{'' if images == 1 else 's'} by {names}"
        accuracy = self.summary[self.summary["measure"] == "accuracy"]
        if len(accuracy):
            first, second = (100 * float(accuracy[side].iloc[0]) for side in ("first", "second"))
            text += f": {first:.1f} % and {second:.1f} % right"
        return f"Comparison({text}, {self.attrs['fixed']:,} fixed, {self.attrs['broken']:,} broken)"


@checked_with_home
def compare(
    first: AnyPath, second: AnyPath, *, by: By | None = None, statistics: Statistics | None = None
) -> Comparison:
    """Compare two stores of the same images, image by image: two models, two checkpoints, or two measurements.

    Classes are matched by name, whatever their order; each model predicts among all of its own classes. Intervals and
    tests are over the images that both stores hold, in pairs. Those of ``summary`` and of differences in ``trajectory``
    are bootstrap intervals, except accuracies, which have Wilson's; those of differences by class are of Agresti and
    Min (2005); those of heads are Student's t. ``p_adjusted`` is corrected by Benjamini and Hochberg (1995) over the
    rows of its table.

    Args:
        first: path or URL of a store of ``classlens.measure``, such as one before fine-tuning.
        second: another one, such as one after it.
        by: ``"content"`` matches images by the content of their files, ``"name"`` by their names, as for photos that
            were changed in between. None takes the content where both stores hold it for all images.
        statistics: resamples, confidence and seed of the intervals; 2,000 resamples at 0.95 by default.

    Returns:
        A ``Comparison``.

    Raises:
        ClasslensError: a path without a store of ``classlens.measure``, stores without an image in common, or models
            without a class name in common.

    Examples:
        >>> import classlens
        >>> comparison = classlens.compare("before.zarr", "after.zarr")  # doctest: +SKIP
        >>> comparison.classes.head()  # the classes that lost most  # doctest: +SKIP
        >>> comparison.images.query("kind == 'broken'")  # doctest: +SKIP
    """
    require_extras_of("compare")
    return comparison_of(MeasuredStore(first), MeasuredStore(second), by=by, statistics=statistics)


def comparison_of(
    first: MeasuredStore, second: MeasuredStore, *, by: By | None = None, statistics: Statistics | None = None
) -> Comparison:
    """``compare`` for stores at hand."""
    statistics = statistics or Statistics()
    pairing = pair(first, second, by)
    heads, head_classes, reason = head_tables(first, second, pairing, statistics.confidence)
    return Comparison(
        summary=summary_table(pairing, statistics),
        classes=class_table(pairing, statistics.confidence),
        images=image_table(pairing),
        flips=flip_table(pairing),
        heads=heads,
        head_classes=head_classes,
        trajectory=trajectory_table(pairing, statistics),
        attrs=_attributes(first, second, pairing, statistics, reason),
    )


def _attributes(
    first: MeasuredStore, second: MeasuredStore, pairing: Pairing, statistics: Statistics, no_heads: str | None
) -> dict[str, Any]:
    names = _names(first, second)
    missing = {} if no_heads is None else {"heads": no_heads, "head_classes": no_heads}
    if not pairing.labeled.any():
        missing["classes"] = missing["trajectory"] = "the stores give no image the same label"
    elif not pairing.first.top.shape[1] or not pairing.second.top.shape[1]:
        missing["trajectory"] = "an earlier version measured a store, without decision trajectories: measure it anew"
    flips = np.bincount(kinds(pairing), minlength=len(KINDS))
    return {
        "first": _facts(first, names[0], pairing.only[0]),
        "second": _facts(second, names[1], pairing.only[1]),
        "images": len(pairing.label),
        "matched_by": pairing.by,
        "labeled_images": int(pairing.labeled.sum()),
        "other_labels": pairing.other_labels,
        "common_classes": pairing.common_classes,
        **{kind: int(count) for kind, count in zip(KINDS, flips, strict=True)},
        "missing": missing,
        "statistics": asdict(statistics),
    }


def _names(first: MeasuredStore, second: MeasuredStore) -> tuple[str, str]:
    """Names that tell the stores apart: of the models, of the stores, or their order."""
    models = str(first.attrs.get("model", "model")), str(second.attrs.get("model", "model"))
    if models[0] != models[1]:
        return models
    if first.stem != second.stem:
        return f"{models[0]} ({first.stem})", f"{models[1]} ({second.stem})"
    return f"{models[0]} (first)", f"{models[1]} (second)"


def _facts(store: MeasuredStore, name: str, only: int) -> dict[str, Any]:
    return {
        "name": name,
        "model": str(store.attrs.get("model", "model")),
        "store": store.stem,
        "weights": store.attrs["weights"],
        "data": store.attrs["data"],
        "split": store.attrs.get("split") or None,
        "classes": store.num_classes,
        "blocks": store.blocks,
        "images": store.images,
        "only": only,
    }
