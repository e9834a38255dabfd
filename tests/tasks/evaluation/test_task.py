"""The task of an evaluation: its groups, their schemas, and its masks."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from classlens import Lens
from classlens.tasks.evaluation.image_batch import EvaluationSettings
from classlens.tasks.evaluation.registry import METRICS
from classlens.tasks.evaluation.task import EvaluationTask, group_name, split_group
from tests.tasks.evaluation.batches import method_of


def task_of(*metrics: str, text: str = "class_gradient:loss=logit", mosaics: bool = False) -> EvaluationTask:
    importance = method_of(text)
    pairs = {group_name(name, text): (METRICS[name], importance) for name in metrics}
    return EvaluationTask(pairs, EvaluationSettings(steps=3), (3, 24, 16), mosaics=mosaics, doubled=False)


def test_groups_are_named_by_metric_and_method() -> None:
    task = task_of("removal", "masking")
    assert task.groups == ("removal.class_gradient:loss=logit", "masking.class_gradient:loss=logit")
    assert split_group(task.groups[0]) == ("removal", "class_gradient:loss=logit")


@pytest.mark.parametrize(("metrics", "grid"), [(("removal",), None), (("removal", "segmentation"), (24, 16))])
def test_masks_are_sampled_at_pixels_for_metrics_that_need_them(
    metrics: tuple[str, ...], grid: tuple[int, int] | None
) -> None:
    assert task_of(*metrics).mask_grid == grid


def test_schema_of_a_group(lens: Lens) -> None:
    task = task_of("removal")
    schema = task.schema(task.groups[0], lens, np.array(["a", "b"], dtype=object))
    assert dict(schema.sizes) == {"image": 2, "order": 2, "kept": 3}
    assert set(schema.variables) == {"label", "correct"}
    assert schema.chunked == {"order", "kept"}
    assert schema.coords["kept"][1].tolist() == [6, 4, 1]
    assert schema.attrs == {
        "metric": "removal",
        "method": "class_gradient:loss=logit",
        "mosaics": False,
        "doubled": False,
        "grid": [3, 2],
        "blocks": len(lens.view.blocks),
        "drawn": False,
    }
    blank = schema.blank(2)
    assert (blank["label"].tolist(), blank["correct"].tolist()) == ([-1, -1], [[[-1] * 3] * 2] * 2)


def test_a_task_travels_to_other_processes() -> None:
    task = pickle.loads(pickle.dumps(task_of("removal", "pointing", mosaics=True)))
    assert task.groups == task_of("removal", "pointing").groups
    assert [metric.label for metric, _ in task.pairs.values()] == ["Removal", "Pointing"]
