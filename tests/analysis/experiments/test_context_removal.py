"""Kept tokens, with the others dropped and with nothing dropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from classlens.analysis.analyze import analyze
from tests.analysis.literal import QUICK, positions, site_index, table_and_contents
from tests.analysis.stores import StoreSpec, Values, write_store

NAME = "context_removal"


@pytest.mark.parametrize(
    ("conditions", "prefix"),
    [
        (("clean", "context_removed", "class_removed"), ("cls", "reg0")),
        (("clean", "context_removed", "class_removed"), ()),
        (("clean", "class_removed"), ("cls",)),
    ],
)
def test_values(tmp_path: Path, conditions: tuple[str, ...], prefix: tuple[str, ...]) -> None:
    spec = StoreSpec(masks=True, conditions=conditions, images=40, prefix=prefix, seed=2)
    table, written = table_and_contents(tmp_path, spec, NAME)
    last = (site_index(spec, "resid_post"), spec.blocks - 1)

    def hits(image: int, condition: str, tokens_are: str, counting: str) -> list[bool]:
        rank = written[condition if tokens_are == "edited" else "clean"]["rank"][image, *last]
        kept = [token for token in positions(spec, "image") if written[condition]["kept"][image, token] == 1]
        if (counting, tokens_are) == ("reference", "edited"):
            kept += positions(spec, "cls")
        return [bool(rank[token] == 0) for token in kept]

    without = 0
    for row in table.to_dict("records"):
        condition, tokens_are, counting = (row[key] for key in ("condition", "tokens_are", "counting"))
        if row["measure"] == "accuracy":
            correct = written[condition if tokens_are == "edited" else "clean"]["correct"]
            assert row["value"] == pytest.approx(correct.mean())
            continue
        by_image = [hits(image, condition, tokens_are, counting) for image in range(spec.images)]
        if (counting, tokens_are) == ("reference", "unedited"):
            wanted = np.mean([hit for tokens in by_image for hit in tokens])
        else:
            wanted = np.mean([np.mean(tokens) for tokens in by_image if tokens])
        assert row["value"] == pytest.approx(wanted, abs=1e-12), row
        assert row["images"] == sum(bool(tokens) for tokens in by_image)
        assert row["images_without"] == spec.images - row["images"]
        without += row["images_without"]
        if (tokens_are, counting) == ("edited", "image_tokens"):
            before = [hits(image, condition, "unedited", counting) for image in range(spec.images)]
            changes = [
                np.mean(after) - np.mean(unedited) for after, unedited in zip(by_image, before, strict=True) if after
            ]
            assert row["change"] == pytest.approx(np.mean(changes), abs=1e-12)
            assert 0 < row["p"] <= 1
        else:
            assert np.isnan(row["change"])
    assert set(table["condition"]) == set(conditions) - {"clean"}
    assert len(table) == 6 * (len(conditions) - 1)
    assert without > 0, "some image keeps no image token"


def test_images_not_reached_yet_count_for_nothing(tmp_path: Path) -> None:
    measured = {"clean": [1] * 12, "context_removed": [1] * 5 + [0] * 7}
    spec = StoreSpec(masks=True, conditions=("clean", "context_removed"), measured=measured, seed=5, grid=(3, 3))
    table, _ = table_and_contents(tmp_path, spec, NAME)
    assert set(table["images"]) == {5}
    assert set(table["images_without"]) == {0}, "of the others nobody knows what they keep"


def test_by_hand(tmp_path: Path) -> None:
    """Three images that keep two, one and no image token; the fourth is not reached by the condition."""
    mask = np.array([[-1, 1, 1, 0, 0], [-1, 1, 0, 0, 0], [-1, 0, 0, 0, 0], [-1, 1, 1, 1, 1]], dtype=np.int8)
    # [CLS], tokens that are not kept, and other blocks and sites would all be right.
    clean, edited = np.zeros((4, 4, 2, 5), dtype=np.int16), np.zeros((4, 4, 2, 5), dtype=np.int16)
    clean[0, 3, 1, 1:3] = 1
    edited[:, 3, 1] = np.where(mask == 0, -1, 0)
    edited[0, 3, 1, 2] = 3
    edited[1, 3, 1, 0] = 2
    facts: dict[str, Values] = {
        "clean": {"class_token": mask, "rank": clean, "correct": np.array([1, 1, -1, 1], dtype=np.int8)},
        "context_removed": {
            "class_token": mask,
            "kept": np.abs(mask),
            "rank": edited,
            "correct": np.array([0, 1, -1, 0], dtype=np.int8),
        },
    }
    measured = {"context_removed": [1, 1, 1, 0]}
    spec = StoreSpec(
        masks=True, images=4, blocks=2, conditions=("clean", "context_removed"), facts=facts, measured=measured
    )
    table, _ = table_and_contents(tmp_path, spec, NAME)
    rows = table.set_index(["tokens_are", "counting", "measure"])[["value", "images", "images_without"]]
    wanted = {
        ("edited", "image_tokens", "tokens_identifiable"): ((1 / 2 + 1) / 2, 2, 1),
        ("edited", "reference", "tokens_identifiable"): ((2 / 3 + 1 / 2 + 1) / 3, 3, 0),
        ("unedited", "image_tokens", "tokens_identifiable"): ((0 + 1) / 2, 2, 1),
        ("unedited", "reference", "tokens_identifiable"): ((0 + 1) / (2 + 1), 2, 1),
        ("edited", "image_tokens", "accuracy"): (1 / 2, 2, 1),
        ("unedited", "image_tokens", "accuracy"): (1, 2, 1),
    }
    assert set(rows.index) == set(wanted)
    for key, numbers in wanted.items():
        assert rows.loc[key].tolist() == pytest.approx(numbers, abs=1e-12), key
    changed = table[table["change"].notna()].set_index("measure")
    assert changed["change"].to_dict() == pytest.approx({"tokens_identifiable": 1 / 4, "accuracy": -1 / 2})
    # Of one image that changes, either sign is as far from 0: two-sided, all permutations count.
    assert changed["p"].tolist() == [1, 1]


def test_without_labels_there_is_no_accuracy_and_it_is_told(tmp_path: Path) -> None:
    write_store(tmp_path / "made.zarr", StoreSpec(masks=True, labels=False, conditions=("clean", "class_removed")))
    result = analyze(tmp_path / "made.zarr", experiments=[NAME], statistics=QUICK)
    assert set(result.tables[NAME]["measure"]) == {"tokens_identifiable"}
    assert [missing.reason for missing in result.missing] == [
        "condition context_removed was not measured: add --conditions context_removed",
        "the images have no labels: measure a data set that has them",
    ]
