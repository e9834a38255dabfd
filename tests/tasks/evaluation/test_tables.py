"""Tables of a store."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import zarr

from classlens import Statistics
from classlens.store.open_store import open_group
from classlens.tasks.evaluation.evaluate import STORE
from classlens.tasks.evaluation.tables import tables
from tests.refusals import refused
from tests.tasks.evaluation.runs import IMAGES, Evaluation


def test_scores_and_curves_of_a_store(complete: Evaluation) -> None:
    scores, curves = complete.result.scores, complete.result.curves
    assert list(scores["metric"].unique()) == ["removal", "masking", "pointing", "class_sensitivity"]
    assert list(scores["method"].unique()) == ["class_gradient", "rollout", "random"]
    correct = open_group(complete.out / STORE, "removal.rollout")["correct"].values
    points = curves[(curves.method == "rollout") & (curves.metric == "removal") & (curves.curve == "positive")]
    np.testing.assert_allclose(points["value"], correct[:, 1].mean(axis=0))
    np.testing.assert_allclose(points["x"], [0, 2 / 6, 3 / 6, 5 / 6])
    assert (scores["low"] <= scores["value"]).all()
    assert (scores["value"] <= scores["high"]).all()
    assert set(scores[scores.method == "random"]["metric"]) == {"removal", "masking", "pointing"}
    assert complete.result.missing == {}
    assert complete.result.run.images == IMAGES + 68


def test_a_group_that_a_killed_run_left_unfinished(complete: Evaluation, tmp_path: Path) -> None:
    shutil.copytree(complete.out / STORE, tmp_path / STORE)
    zarr.open_group(str(tmp_path / STORE)).create_group("removal.chefer")
    scores, _ = tables(str(tmp_path / STORE), Statistics())
    pd.testing.assert_frame_equal(scores, complete.result.scores)


def test_a_metric_that_is_not_registered(complete: Evaluation, tmp_path: Path) -> None:
    shutil.copytree(complete.out / STORE, tmp_path / STORE)
    shutil.copytree(tmp_path / STORE / "masking.random", tmp_path / STORE / "unmasking.random")
    refused(lambda: tables(str(tmp_path / STORE), Statistics()), "metric 'unmasking' is not known", "removal")


def test_differences_from_the_best_are_paired(complete: Evaluation) -> None:
    """The area is linear in the images, so its difference is the area of the images' differences; by scipy."""
    scores = complete.result.scores.set_index(["measure", "method"])
    for measure, direction in (("negative_auc", 0), ("positive_auc", 1)):
        rows = scores.loc[measure].query("metric == 'removal'")
        best = rows["value"].idxmax() if direction == 0 else rows["value"].idxmin()
        assert (rows.loc[best, ["difference", "difference_low", "difference_high"]] == 0).all()
        for method in set(rows.index) - {best}:
            areas = []
            for name in (method, best):
                correct = open_group(complete.out / STORE, f"removal.{name}")["correct"].values.astype(float)
                curves = correct.mean(axis=1) if name == "random" else correct[:, direction]
                areas.append(curves @ [1 / 5, 3 / 10, 3 / 10, 1 / 5])  # trapezoids of widths 2, 1 and 2 of 5
            difference = areas[0] - areas[1]
            expected = scipy.stats.bootstrap((difference,), np.mean, n_resamples=20_000, method="percentile", rng=0)
            row = rows.loc[method]
            assert row["difference"] == pytest.approx(difference.mean())
            # A quantile of 2,000 resamples has a standard error of about a tenth of the standard error of the mean.
            tolerance = 0.4 * difference.std() / len(difference) ** 0.5
            interval = row["difference_low"], row["difference_high"]
            assert interval == pytest.approx(expected.confidence_interval, abs=tolerance)
    assert scores.query("metric == 'class_sensitivity'")["difference"].isna().all(), "no direction is better"


def test_no_difference_between_other_images(complete: Evaluation, tmp_path: Path) -> None:
    shutil.copytree(complete.out / STORE, tmp_path / STORE)
    measured = zarr.open_array(str(tmp_path / STORE / "masking.random" / "measured"))
    measured[0] = 0
    scores, _ = tables(str(tmp_path / STORE), Statistics())
    masking = scores[scores.metric == "masking"].set_index("method")["difference"]
    assert masking.loc["random"].isna().any()
    assert not masking.loc["rollout"].isna().all()
