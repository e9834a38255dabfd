"""Which predictions not to trust: scores of doubt, fitted on one set of images and tested on another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy import ndarray

from classlens.analysis.doubt import DOUBT_METHODS, Decisions, fit_doubt
from classlens.analysis.image_table import CONTENT, image_rows
from classlens.analysis.measured_store import MeasuredStore, Requirement
from classlens.core.arguments import AnyPath
from classlens.core.arrays import Array
from classlens.core.error_detection import LOWER_IS_BETTER, MEASURES, detection, risk_coverage
from classlens.core.path_arguments import checked_with_home
from classlens.core.stats import Statistics, interval, resample
from classlens.errors import ClasslensError
from classlens.extras import require_extras_of
from classlens.renderers import Shown


@dataclass(frozen=True, eq=False)
class ReliabilityResult(Shown):
    """How well wrong predictions can be told from right ones, and the images whose prediction is most doubtful.

    A notebook shows the scores and the most doubtful images.

    Attributes:
        scores: one row per method and measure, with columns ``method, measure, value, low, high, images, better,
            difference, difference_low, difference_high``: intervals over test images; ``difference`` is the value minus
            that of the best method, its interval resampled over the same images.
        curves: one row per method and level of doubt, with columns ``method, coverage, risk``.
        images: one row per test image, the most doubtful first, with columns ``image, label, prediction, confidence,
            correct`` and one for each method. ``trajectory`` and ``top_logits`` are probabilities of being wrong.
        train, test: facts of both sets: model, data, images, wrong predictions.
        statistics: settings of the intervals.
    """

    _renderer: ClassVar[str] = "reliability"

    scores: pd.DataFrame
    curves: pd.DataFrame
    images: pd.DataFrame
    train: dict[str, Any]
    test: dict[str, Any]
    statistics: Statistics


class _Measured(NamedTuple):
    """The trajectories of a store's images, with a table of the images; ``correct`` is NaN without a label."""

    decisions: Decisions
    images: pd.DataFrame

    def part(self, chosen: Array) -> _Measured:
        return _Measured(self.decisions.part(chosen), self.images.iloc[chosen])

    @property
    def wrong(self) -> Bool[ndarray, " images"]:
        return np.asarray(self.images["correct"] == 0)


@checked_with_home
def reliability(
    train: AnyPath, test: AnyPath | None = None, *, statistics: Statistics | None = None
) -> ReliabilityResult:
    """Test whether the trajectory of a decision tells wrong predictions from right ones, beside common scores of doubt.

    A logistic regression on standardized features of the trajectory is fitted on the images of ``train``, and every
    score is measured on those of ``test``. Intervals hold the fitted regression fixed.

    Args:
        train: a store of ``classlens.measure``, whose labels the regressions learn.
        test: another store of the same model, of other images. None splits the images of ``train`` at random in
            halves.
        statistics: resamples, confidence and seed of the intervals and of the split; 2,000 resamples at 0.95 by
            default.

    Returns:
        A ``ReliabilityResult``.

    Raises:
        ClasslensError: a store has no trajectories or labels; both stores are of other models, or share images; the
            images of ``train`` or ``test`` hold no wrong or no right prediction.

    Examples:
        >>> import classlens
        >>> result = classlens.reliability("imagenet.zarr", "places.zarr")  # doctest: +SKIP
        >>> result.images.head(20)  # the most doubtful predictions  # doctest: +SKIP
    """
    require_extras_of("reliability")
    statistics = statistics or Statistics()
    fitted = MeasuredStore(train)
    train_set = _read(fitted)
    if test is None:
        order = np.random.default_rng(statistics.seed).permutation(len(train_set.images))
        half = len(order) // 2
        tested, whole = fitted, train_set
        train_set, test_set = whole.part(np.sort(order[:half])), whole.part(np.sort(order[half:]))
    else:
        tested = MeasuredStore(test)
        test_set = _read(tested)
        _check_pair(fitted, tested, train_set.images, test_set.images)
    train_set = train_set.part(np.flatnonzero(train_set.images["correct"].notna()))
    known = np.flatnonzero(test_set.images["correct"].notna())
    labeled = test_set.part(known)
    _require_both(fitted, train_set.wrong)
    _require_both(tested, labeled.wrong)
    doubt = _doubt(train_set, test_set)
    known_doubt = {method: values[known] for method, values in doubt.items()}
    shown = ["image", "label", "prediction", "confidence", "correct"]
    images = test_set.images[shown].assign(**doubt).sort_values("trajectory", ascending=False, kind="stable")
    return ReliabilityResult(
        _scores(known_doubt, labeled.wrong, statistics),
        _curves(known_doubt, labeled.wrong),
        images.reset_index(drop=True),
        _facts(fitted, train_set),
        _facts(tested, labeled),
        statistics,
    )


def _read(store: MeasuredStore) -> _Measured:
    """Trajectories and image rows of a store; raises ClasslensError where it lacks them."""
    reason = store.lacks(Requirement(labels=True, trajectory=True))
    if reason is not None:
        raise ClasslensError(f"store {store.url!r}: {reason}")
    rows, parts = [], []
    for batch in store.batches():
        rows.append(image_rows(batch))
        parts.append(Decisions.of(batch))
    decisions = Decisions.joined(parts)
    images = pd.concat(rows, ignore_index=True)
    if images["correct"].isna().all():
        raise ClasslensError(
            f"store {store.url!r} has no measured image with a label: no prediction is right or wrong; give a store of "
            "labeled images"
        )
    return _Measured(decisions, images)


def _check_pair(
    train: MeasuredStore, test: MeasuredStore, train_images: pd.DataFrame, test_images: pd.DataFrame
) -> None:
    """Raises ClasslensError for stores of other models, and for images that are in both."""
    if train.attrs["weights"] != test.attrs["weights"]:
        raise ClasslensError(
            f"stores {train.url!r} and {test.url!r} are of other weights: measure both data sets with the same model"
        )
    keys = ["image"]
    if all(CONTENT in images and bool(images[CONTENT].fillna(0).all()) for images in (train_images, test_images)):
        keys = [CONTENT]
    elif train.attrs["data"] != test.attrs["data"]:
        return
    shared = train_images.merge(test_images, on=keys)
    if len(shared):
        raise ClasslensError(
            f"stores {train.url!r} and {test.url!r} share {len(shared):,} images, such as "
            f"{shared.filter(like='image').iloc[0, 0]!r}: give other images to test on, or one store, whose images "
            "are split in halves"
        )


def _require_both(store: MeasuredStore, wrong: Bool[ndarray, " images"]) -> None:
    if wrong.all() or not wrong.any():
        kind = "wrong" if not wrong.any() else "right"
        raise ClasslensError(
            f"store {store.url!r} has no {kind} prediction among {len(wrong):,} images: expected some of both; give "
            "a store of more or harder images"
        )


def _doubt(train: _Measured, test: _Measured) -> dict[str, Float[ndarray, " images"]]:
    """Each score of doubt of the test images."""
    return {
        name: fit_doubt(method, train.decisions, train.wrong)(test.decisions) for name, method in DOUBT_METHODS.items()
    }


def _scores(
    doubt: Mapping[str, Float[ndarray, " images"]], wrong: Bool[ndarray, " images"], statistics: Statistics
) -> pd.DataFrame:
    better = ["lower" if measure in LOWER_IS_BETTER else "higher" for measure in MEASURES]
    sign = np.where(np.array(better) == "higher", 1, -1)
    measured = {name: detection(values, wrong) for name, values in doubt.items()}
    values = np.stack([statistic(np.ones((1, len(wrong))))[0] for statistic in measured.values()])
    draws = {name: resample(statistic, len(wrong), statistics) for name, statistic in measured.items()}
    best = [list(doubt)[row] for row in (sign * values).argmax(axis=0)]
    against = np.stack([draws[other][:, column] for column, other in enumerate(best)], axis=1)
    rows = []
    for name, value in zip(doubt, values, strict=True):
        low, high = interval(draws[name], statistics)
        difference_low, difference_high = interval(draws[name] - against, statistics)
        table = pd.DataFrame({"method": name, "measure": MEASURES, "value": value, "low": low, "high": high})
        rows.append(
            table.assign(
                images=len(wrong),
                better=better,
                difference=value - (sign * values).max(axis=0) * sign,
                difference_low=difference_low,
                difference_high=difference_high,
            )
        )
    return pd.concat(rows, ignore_index=True)


def _curves(doubt: Mapping[str, Float[ndarray, " images"]], wrong: Bool[ndarray, " images"]) -> pd.DataFrame:
    rows = []
    for name, values in doubt.items():
        coverage, risk = risk_coverage(values, wrong)
        rows.append(pd.DataFrame({"method": name, "coverage": coverage, "risk": risk}))
    return pd.concat(rows, ignore_index=True)


def _facts(store: MeasuredStore, measured: _Measured) -> dict[str, Any]:
    return {
        "model": store.model,
        "name": store.attrs["model"],
        "weights": store.attrs["weights"],
        "store": store.stem,
        "data": store.attrs["data"],
        "split": store.attrs["split"],
        "images": len(measured.images),
        "wrong": int(measured.wrong.sum()),
    }
