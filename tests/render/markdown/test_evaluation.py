"""The summary of an evaluation: numbers, bold values, and missing metrics."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.core.stats import Statistics
from classlens.engine.progress import MeasureResult
from classlens.render.markdown.evaluation import evaluation_summary
from classlens.tasks.evaluation.evaluate import EvaluateResult

ROWS = [
    ("chefer", "removal", "negative_auc", 0.8, 0.7, 0.9, "higher", 0, 0),
    ("random", "removal", "negative_auc", 0.72, 0.6, 0.81, "higher", -0.2, 0.01),
    ("rollout", "removal", "negative_auc", 0.79, 0.7, 0.9, "higher", -0.02, -0.001),
    ("chefer", "removal", "positive_auc", 0.4, 0.35, 0.45, "lower", 0, 0),
    ("random", "removal", "positive_auc", 0.7, 0.6, 0.8, "lower", 0.2, 0.4),
    ("chefer", "class_sensitivity", "score", 0.5, 0.4, 0.6, "", np.nan, np.nan),
    ("logit_attribution", "completeness", "missing_logits", 4e-7, 3e-7, 5e-7, "lower", 0, 0),
]


def result(rows: list[tuple[object, ...]]) -> EvaluateResult:
    columns = ["method", "metric", "measure", "value", "low", "high", "better", "difference_low", "difference_high"]
    scores = pd.DataFrame(rows, columns=columns).assign(model="a|b", images=1234)
    curves = pd.DataFrame(columns=["model", "method", "metric", "curve", "x", "value", "low", "high"])
    outcome = MeasureResult("out/evaluation.zarr", 1234, 0, {}, 1.0, 16)
    return EvaluateResult(scores, curves, {"segmentation": "the data has no masks"}, outcome, Statistics(resamples=50))


def test_tables() -> None:
    lines = evaluation_summary(result(list(ROWS))).splitlines()
    assert lines[0] == "# How faithful explanations are: a\\|b"
    assert "Up to 1,234 images" in lines[2]
    assert "50 resamples" in lines[2]
    assert "| method | removal, least first, AUC ↑ | removal, most first, AUC ↓ |" in lines
    # Bold: the best, and one whose difference from it may be 0; close values may differ in every image.
    assert "| chefer | **0.800 (0.700 to 0.900)** | **0.400 (0.350 to 0.450)** |" in lines
    assert "| random | **0.720 (0.600 to 0.810)** | 0.700 (0.600 to 0.800) |" in lines
    assert "| rollout | 0.790 (0.700 to 0.900) |  |" in lines
    assert "| chefer | 0.500 (0.400 to 0.600) |" in lines  # no direction is better
    assert "| logit_attribution | 4.0e-07 (3.0e-07 to 5.0e-07) |" in lines
    assert lines[-1] == "- Not measured: segmentation: the data has no masks."


def test_nothing_measured() -> None:
    text = evaluation_summary(result([]))
    assert text.startswith("# How faithful explanations are\n")
    assert "Not measured: segmentation" in text
