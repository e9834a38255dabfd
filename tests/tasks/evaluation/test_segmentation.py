"""Segmentation scores against scikit-learn, pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, jaccard_score

from classlens.core.stats import Statistics
from classlens.tasks.evaluation.importance import parse_methods
from classlens.tasks.evaluation.metrics.masking import upsample
from classlens.tasks.evaluation.metrics.segmentation import Segmentation, average_precision
from tests import zoo
from tests.tasks.evaluation.batches import lens_of, seen

NAME = "cls_not_square"


def measured(shows: Any, images: int) -> tuple[dict[str, Any], Any]:
    lens, pixels, target = lens_of(), zoo.pixels(NAME, images), zoo.targets(images)
    (method,) = parse_methods("chefer")
    found = Segmentation().measure(seen(lens, pixels, target, shows=shows), method)
    maps = upsample(method.importance(lens.trace(pixels), target), (3, 2), (24, 16)).flatten(1).numpy()
    return found, maps


def as_data(found: dict[str, Any]) -> xr.Dataset:
    return xr.Dataset(
        {key: (("image", "part") if values.ndim == 2 else ("image",), values) for key, values in found.items()}
    )


def test_against_scikit_learn() -> None:
    shows = np.random.default_rng(0).integers(-1, 2, (4, 24 * 16)).astype(np.int8)
    found, maps = measured(shows, 4)
    truth, cut, precisions = [], [], []
    for image in range(4):
        known = shows[image] >= 0
        values = maps[image]
        truth.append(shows[image][known] == 1)
        cut.append((values > values.mean())[known])
        scaled = (values - values.min()) / (values.max() - values.min())
        both = np.concatenate([1 - scaled[known], scaled[known]])
        precisions.append(average_precision_score(np.concatenate([~truth[-1], truth[-1]]), both))
    scores = {score.measure: score for score in Segmentation().scores(as_data(found), Statistics(resamples=200))}
    whole, mapped = np.concatenate(truth), np.concatenate(cut)
    assert scores["pixel_accuracy"].value == pytest.approx(accuracy_score(whole, mapped))
    assert scores["mean_iou"].value == pytest.approx(jaccard_score(whole, mapped, average="macro"))
    assert scores["mean_ap"].value == pytest.approx(np.mean(precisions), abs=1e-6)  # kept in float32
    assert scores["mean_iou"].low < scores["mean_iou"].value < scores["mean_iou"].high
    assert scores["mean_iou"].images == 4


def test_images_without_a_mask_or_without_their_class_do_not_count() -> None:
    shows = np.zeros((3, 24 * 16), dtype=np.int8)
    shows[0, :100] = 1
    shows[1] = -1
    found, _ = measured(shows, 3)
    assert found["pixels"].tolist() == [384, -1, -1]
    assert np.isnan(found["average_precision"]).tolist() == [False, True, True]
    data = as_data(found)
    for score in Segmentation().scores(data, Statistics(resamples=10)):
        assert score.images == 1
        assert np.isfinite(score.value)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=40))
def test_average_precision_with_ties(pairs: list[tuple[int, bool]]) -> None:
    scores, wanted = (np.array(side) for side in zip(*pairs, strict=True))
    if wanted.any():
        assert average_precision(scores.astype(float), wanted) == pytest.approx(
            average_precision_score(wanted, scores), abs=1e-12
        )


def test_a_flat_map_is_background_everywhere() -> None:
    lens, pixels, target = lens_of(), zoo.pixels(NAME, 1), zoo.targets(1)
    shows = np.ones((1, 24 * 16), dtype=np.int8)
    shows[0, :96] = 0
    batch = seen(lens, pixels, target, shows=shows)
    (method,) = parse_methods("grad_cam")
    batch._maps[method.text] = torch.zeros(1, 6)
    found = Segmentation().measure(batch, method)
    assert found["hits"].tolist() == [96]
    assert found["intersection"].tolist() == [[96, 0]]
    assert found["union"].tolist() == [[384, 288]]
    # Two steps: 384 pixels that are called background, 96 of them are, then the other half of both, 288 wanted of 384.
    assert found["average_precision"][0] == pytest.approx(96 / 384 * 96 / 384 + 288 / 384 * 384 / 768)


def test_a_map_that_is_largest_where_the_mask_does_not_tell() -> None:
    """Scale and cut are those of the whole map; only the scores leave the pixels out."""
    lens, pixels, target = lens_of(), zoo.pixels(NAME, 1), zoo.targets(1)
    shows = np.zeros((1, 24 * 16), dtype=np.int8)
    shows.reshape(24, 16)[12:] = 1  # the lower half
    importance = torch.tensor([[9.0, 1.0, 2.0, 0.0, 1.0, 3.0]], dtype=torch.float64)
    shows.reshape(24, 16)[:10, :10] = -1  # around the first token
    batch = seen(lens, pixels, target, shows=shows)
    (method,) = parse_methods("grad_cam")
    batch._maps[method.text] = importance
    found = Segmentation().measure(batch, method)
    values = upsample(importance, (3, 2), (24, 16)).flatten().numpy()
    known = shows[0] >= 0
    assert values.argmax() in np.flatnonzero(~known)
    truth = shows[0][known] == 1
    both = np.concatenate([1 - values / 9, values / 9])
    wanted = np.concatenate([~truth, truth])
    expected = average_precision_score(wanted, both[np.tile(known, 2)])
    assert found["average_precision"][0] == pytest.approx(expected, abs=1e-6)
    scaled = values[known] / values[known].max()
    other = average_precision_score(wanted, np.concatenate([1 - scaled, scaled]))
    assert abs(other - expected) > 0.01, "else the case would not tell"
    cut = (values > values.mean())[known]
    assert found["hits"].tolist() == [(cut == truth).sum()]
    assert (cut != (values[known] > values[known].mean())).any()


def test_masks_that_never_show_the_class_leave_no_score() -> None:
    found, _ = measured(np.zeros((2, 24 * 16), dtype=np.int8), 2)
    scores = list(Segmentation().scores(as_data(found), Statistics(resamples=10)))
    assert [score.images for score in scores] == [0, 0, 0]
    assert np.isnan([score.value for score in scores]).all()
