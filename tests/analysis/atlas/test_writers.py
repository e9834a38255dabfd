"""Contributions to classes and to confusions, image by image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from tests.analysis.atlas.conftest import CLASSES, Case
from tests.analysis.atlas.literal import assert_mean

LABEL, PREDICTION, MEAN = range(3)
HEADS = (3, 2, 3)
GROUPS = ("all", "right", "wrong")


def parts() -> Iterator[tuple[str, int, int]]:
    for block, heads in enumerate(HEADS):
        yield from (("attn", block, head) for head in range(heads))
    yield from (("mlp", block, -1) for block in range(len(HEADS)))


def contribution(case: Case, image: int, of: int, part: tuple[str, int, int]) -> float:
    sublayer, block, head = part
    if sublayer == "mlp":
        return float(case.written["attribution"]["mlp_contribution"][image, of, block])
    return float(case.written["attribution"]["head_contribution"][image, of, block, head])


def test_a_writer_is_a_mean_over_the_images_of_a_label(case: Case) -> None:
    rows = {
        (row["category"], (row["sublayer"], row["block"], row["head"]), row["group"]): row
        for row in case.atlas["writers"].to_dict("records")
    }
    images = {(category, group): case.of(category, group) for category in range(CLASSES) for group in GROUPS}
    present = [key for key, chosen in images.items() if chosen]
    assert set(rows) == {(category, part, group) for category, group in present for part in parts()}
    for (category, part, group), row in rows.items():
        values = [
            contribution(case, image, LABEL, part) - contribution(case, image, MEAN, part)
            for image in images[category, group]
        ]
        assert row["images"] == len(values)
        assert_mean(row, values, "contribution")


def test_a_tip_is_of_the_most_frequent_confusion_of_a_label(case: Case) -> None:
    confused: dict[int, Counter[int]] = {category: Counter() for category in range(CLASSES)}
    for image in case.images:
        label, prediction = int(case.clean("label")[image]), int(case.clean("prediction")[image])
        if label >= 0 and label != prediction:
            confused[label][prediction] += 1
    wanted: dict[int, int] = {}
    for label, rivals in confused.items():
        for rival in sorted(rivals):  # the lower class of two that are as frequent
            if rivals[rival] >= 2 and rivals[rival] > rivals.get(wanted.get(label, -1), 0):
                wanted[label] = rival
    assert set(wanted) == {0, 1, 2, 3}
    assert confused[1][0] == confused[1][3] >= 2
    rows = {
        (row["label"], row["prediction"], (row["sublayer"], row["block"], row["head"])): row
        for row in case.atlas["tips"].to_dict("records")
    }
    assert set(rows) == {(label, rival, part) for label, rival in wanted.items() for part in parts()}
    for (label, rival, part), row in rows.items():
        values = [
            contribution(case, image, PREDICTION, part) - contribution(case, image, LABEL, part)
            for image in case.of(label, "wrong")
            if int(case.clean("prediction")[image]) == rival
        ]
        assert row["images"] == len(values)
        assert_mean(row, values, "difference")


def test_the_data_set_has_the_same_means_and_they_add_up(case: Case) -> None:
    dataset = case.atlas.dataset
    assert dataset["class_name"].values.tolist() == case.atlas.class_names
    for row in case.atlas["writers"].query("group == 'all'").to_dict("records"):
        if row["sublayer"] == "mlp":
            value = dataset["mlp_contribution"].sel(category=row["category"], block=row["block"])
        else:
            of_category = dataset["head_contribution"].sel(category=row["category"])
            value = of_category.sel(block=row["block"], head=row["head"])
        assert float(value) == row["contribution"]
    heads = dataset["head_contribution"].sum(["block", "head"])  # without the head that a block lacks
    total = heads + dataset["mlp_contribution"].sum("block") + dataset["embed"] + dataset["bias"]
    # Parts are stored in float32; sums of a dozen numbers near 1.
    np.testing.assert_allclose(total[:5], dataset["logit"][:5], atol=1e-5)
    assert np.isnan(dataset["logit"][5]), "no image"
    for row in case.atlas["heads"].to_dict("records"):
        for column in ("distance", "entropy"):
            value = dataset[f"attention_{column}"].sel(block=row["block"], head=row["head"])
            assert float(value) == pytest.approx(row[column], abs=0)
