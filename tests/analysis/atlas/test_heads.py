"""Attention of heads, their maps and their tokens, against the arrays of the store."""

from __future__ import annotations

import pytest

from tests.analysis.atlas.conftest import Case
from tests.analysis.atlas.literal import assert_mean

HEADS = [(block, head) for block, count in enumerate((3, 2, 3)) for head in range(count)]


def test_attention_is_averaged_over_images(case: Case) -> None:
    table = case.atlas["heads"]
    assert list(zip(table["block"], table["head"], strict=True)) == HEADS
    for row in table.to_dict("records"):
        block, head = row["block"], row["head"]
        assert row["contribution_images"] == len(case.images)
        for name in ("distance", "entropy"):
            stored = case.written["attribution"][f"attention_{name}"]
            assert_mean(row, [float(stored[image, block, head]) for image in case.images], name, f"{name}_")
        assert row["copy_share"] == pytest.approx(float(case.written["head_maps"]["copy_share"][block, head]), abs=0)


def test_maps_are_listed_with_names(case: Case) -> None:
    stored, rows = case.written["head_maps"], case.atlas["head_map"].to_dict("records")
    assert [(row["block"], row["head"], row["pair"]) for row in rows] == [
        (*head, pair) for head in HEADS for pair in range(20)
    ]
    for row in rows:
        index = row["block"], row["head"], row["pair"]
        assert (row["input_class"], row["output_class"]) == (
            stored["input_class"][index],
            stored["output_class"][index],
        )
        assert (row["input_name"], row["output_name"]) == (
            f"class {row['input_class']}",
            f"class {row['output_class']}",
        )
        assert row["score"] == stored["score"][index]


@pytest.mark.parametrize(("table", "value"), [("head_tokens", "contribution"), ("unit_tokens", "coefficient")])
def test_tokens_are_listed_with_their_images(table: str, value: str, case: Case) -> None:
    stored, rows = case.written[table], case.atlas[table].to_dict("records")
    part = "head" if table == "head_tokens" else "unit"
    assert len(rows) == int((stored["token_image"] >= 0).sum()) > 60
    for row in rows:
        index = row["block"], row[part], row["top"]
        image, token = int(stored["token_image"][index]), int(stored["token"][index])
        assert (row["image"], row["image_index"], row["token"]) == (f"{image:04}.png", image, token)
        # One prefix token, then a grid of 2 × 2.
        assert (row["row"], row["column"]) == divmod(token - 1, 2)
        assert row[value] == stored[value][index]
        assert (row["label"], row["prediction"]) == (case.clean("label")[image], case.clean("prediction")[image])
    keys = [(row["block"], row[part], row["top"]) for row in rows]
    assert keys == sorted(keys)
