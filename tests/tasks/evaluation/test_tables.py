"""Tables of a store."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
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
    shutil.copytree(tmp_path / STORE / "masking.random", tmp_path / STORE / "insertion.random")
    refused(lambda: tables(str(tmp_path / STORE), Statistics()), "metric 'insertion' is not known", "removal")
