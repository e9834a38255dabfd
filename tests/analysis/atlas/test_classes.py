"""Labels, predictions and confusions, counted image by image."""

from __future__ import annotations

from collections import Counter

from tests.analysis.atlas.conftest import CLASSES, Case
from tests.analysis.atlas.literal import assert_share


def test_classes_are_counted(case: Case) -> None:
    table = case.atlas["classes"]
    assert table["category"].tolist() == list(range(CLASSES))
    for row in table.to_dict("records"):
        category = row["category"]
        correct = len(case.of(category, "right"))
        assert row["class_name"] == f"class {category}"
        assert row["images"] == len(case.of(category, "all"))
        assert row["correct"] == correct
        assert_share(row, correct, row["images"], "accuracy")
        # An image without a label is predicted as well.
        assert row["predicted"] == sum(int(case.clean("prediction")[image]) == category for image in case.images)
    assert table["images"].sum() == len(case.images) - 3
    assert table["images"].iloc[-1] == 0


def test_confusions_are_counted_and_the_most_frequent_comes_first(case: Case) -> None:
    pairs = Counter((int(case.clean("label")[image]), int(case.clean("prediction")[image])) for image in case.images)
    pairs = Counter({pair: count for pair, count in pairs.items() if pair[0] >= 0 and pair[0] != pair[1]})
    table = case.atlas["confusions"]
    assert list(zip(table["label"], table["prediction"], strict=True)) == sorted(pairs, key=lambda p: (-pairs[p], p))
    for row in table.to_dict("records"):
        pair = row["label"], row["prediction"]
        assert (row["label_name"], row["prediction_name"]) == (f"class {pair[0]}", f"class {pair[1]}")
        assert row["images"] == pairs[pair]
        assert_share(row, pairs[pair], len(case.of(pair[0], "all")), "share")
