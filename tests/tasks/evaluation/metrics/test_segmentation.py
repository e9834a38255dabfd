"""Segmentation scores, compared with scikit-learn pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, jaccard_score

from classlens.core.pixel_maps import upsample
from classlens.core.stats import Statistics
from classlens.tasks.evaluation.metrics.segmentation import Segmentation, average_precision
from tests import zoo
from tests.tasks.evaluation.batches import GivenImportance, batch_of, lens_of, method_of

NAME = "cls_not_square"


def measure(shows_class: Any, images: int) -> tuple[dict[str, Any], Any]:
    """The arrays of ``chefer``, and its maps at the resolution of the pixels."""
    lens, pixels, target = lens_of(), zoo.pixels(NAME, images), zoo.targets(images)
    importance = method_of("chefer")
    arrays = Segmentation().measure(batch_of(lens, pixels, target, shows_class=shows_class), importance)
    return arrays, upsample(importance.explain(lens.trace(pixels), target), (3, 2), (24, 16)).flatten(1).numpy()


def measure_given(importance: torch.Tensor, shows_class: Any) -> dict[str, Any]:
    batch = batch_of(lens_of(), zoo.pixels(NAME, 1), zoo.targets(1), shows_class=shows_class)
    return Segmentation().measure(batch, GivenImportance(importance))


def dataset_of(arrays: dict[str, Any]) -> xr.Dataset:
    return xr.Dataset(
        {key: (("image", "part") if values.ndim == 2 else ("image",), values) for key, values in arrays.items()}
    )


def test_against_scikit_learn() -> None:
    shows_class = np.random.default_rng(0).integers(-1, 2, (4, 24 * 16)).astype(np.int8)
    arrays, maps = measure(shows_class, 4)
    truth, predicted, precisions = [], [], []
    for image in range(4):
        known = shows_class[image] >= 0
        values = maps[image]
        truth.append(shows_class[image][known] == 1)
        predicted.append((values > values.mean())[known])
        scaled = (values - values.min()) / (values.max() - values.min())
        both = np.concatenate([1 - scaled[known], scaled[known]])
        precisions.append(average_precision_score(np.concatenate([~truth[-1], truth[-1]]), both))
    scores = {score.measure: score for score in Segmentation().scores(dataset_of(arrays), Statistics(resamples=200))}
    all_truth, all_predicted = np.concatenate(truth), np.concatenate(predicted)
    assert scores["pixel_accuracy"].value == pytest.approx(accuracy_score(all_truth, all_predicted))
    assert scores["mean_iou"].value == pytest.approx(jaccard_score(all_truth, all_predicted, average="macro"))
    assert scores["mean_ap"].value == pytest.approx(np.mean(precisions), abs=1e-6)  # stored in float32
    assert scores["mean_iou"].low < scores["mean_iou"].value < scores["mean_iou"].high
    assert scores["mean_iou"].images == 4


def test_images_without_a_mask_or_without_their_class_do_not_count() -> None:
    shows_class = np.zeros((3, 24 * 16), dtype=np.int8)
    shows_class[0, :100] = 1
    shows_class[1] = -1
    arrays, _ = measure(shows_class, 3)
    assert arrays["pixels"].tolist() == [384, -1, -1]
    assert np.isnan(arrays["average_precision"]).tolist() == [False, True, True]
    for score in Segmentation().scores(dataset_of(arrays), Statistics(resamples=10)):
        assert score.images == 1
        assert np.isfinite(score.value)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=40))
def test_average_precision_with_ties(pairs: list[tuple[int, bool]]) -> None:
    scores, relevant = (np.array(values) for values in zip(*pairs, strict=True))
    if relevant.any():
        assert average_precision(scores.astype(float), relevant) == pytest.approx(
            average_precision_score(relevant, scores), abs=1e-12
        )


def test_a_flat_map_is_background_everywhere() -> None:
    shows_class = np.ones((1, 24 * 16), dtype=np.int8)
    shows_class[0, :96] = 0
    arrays = measure_given(torch.zeros(1, 6), shows_class)
    assert arrays["hits"].tolist() == [96]
    assert arrays["intersection"].tolist() == [[96, 0]]
    assert arrays["union"].tolist() == [[384, 288]]
    # Two steps: all 384 pixels as background, where 96 are relevant; then all as class, where 288 are.
    assert arrays["average_precision"][0] == pytest.approx(96 / 384 * 96 / 384 + 288 / 384 * 384 / 768)


def test_the_largest_value_at_a_pixel_of_unknown_class() -> None:
    """Scale and threshold are those of the whole map; only the scores leave such pixels out."""
    shows_class = np.zeros((1, 24 * 16), dtype=np.int8)
    shows_class.reshape(24, 16)[12:] = 1  # the lower half
    shows_class.reshape(24, 16)[:10, :10] = -1  # around the first token
    importance = torch.tensor([[9.0, 1.0, 2.0, 0.0, 1.0, 3.0]], dtype=torch.float64)
    arrays = measure_given(importance, shows_class)
    values = upsample(importance, (3, 2), (24, 16)).flatten().numpy()
    known = shows_class[0] >= 0
    assert values.argmax() in np.flatnonzero(~known)
    truth = shows_class[0][known] == 1
    both = np.concatenate([1 - values / 9, values / 9])
    relevant = np.concatenate([~truth, truth])
    expected = average_precision_score(relevant, both[np.tile(known, 2)])
    assert arrays["average_precision"][0] == pytest.approx(expected, abs=1e-6)
    scaled = values[known] / values[known].max()
    other = average_precision_score(relevant, np.concatenate([1 - scaled, scaled]))
    assert abs(other - expected) > 0.01, "otherwise this map would not show the difference"
    predicted = (values > values.mean())[known]
    assert arrays["hits"].tolist() == [(predicted == truth).sum()]
    assert (predicted != (values[known] > values[known].mean())).any()


def test_masks_that_never_show_the_class_leave_no_score() -> None:
    arrays, _ = measure(np.zeros((2, 24 * 16), dtype=np.int8), 2)
    scores = list(Segmentation().scores(dataset_of(arrays), Statistics(resamples=10)))
    assert [score.images for score in scores] == [0, 0, 0]
    assert np.isnan([score.value for score in scores]).all()
