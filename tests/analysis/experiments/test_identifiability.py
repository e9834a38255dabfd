"""Identifiability rates at the last block, image by image and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.analysis.literal import assert_is_twin, positions, share, site_index, table_and_contents
from tests.analysis.stores import StoreSpec

NAME = "identifiability"


@pytest.mark.parametrize("prefix", [("cls",), (), ("cls", "reg0", "reg1"), ("cls", "dist")])
def test_rates(tmp_path: Path, prefix: tuple[str, ...]) -> None:
    spec = StoreSpec(prefix=prefix, grid=(2, 3))
    table, written = table_and_contents(tmp_path, spec, NAME)

    def twin(image: int, condition: str, counting: str, measure: str) -> float:
        if measure == "accuracy":
            return float(written[condition]["correct"][image])
        rank = written[condition]["rank"][image, site_index(spec, "resid_post"), spec.blocks - 1]
        tokens = positions(spec, "cls" if measure == "cls_identifiable" else "image")
        if counting == "reference" and "cls" not in prefix:
            tokens = tokens[1:]
        hits = [rank[token] == 0 for token in tokens]
        return float(any(hits)) if measure == "images_identifiable" else share(hits)

    assert_is_twin(table, spec, NAME, twin)
    assert len(table) == 2 * (2 * 2 + 1 + ("cls" in prefix))
    assert set(table.loc[table["measure"] != "images_identifiable", "chance"]) == {1 / spec.classes}
    assert table.loc[table["measure"] == "images_identifiable", "chance"].isna().all()


def test_exactly_37_and_a_half_percent(tmp_path: Path) -> None:
    """Three of eight image tokens of each image; the rank of [CLS] and of other blocks and sites does not count."""
    rank = np.ones((64 + 6, 4, 3, 9), dtype=np.int16)
    rank[..., 0] = 0
    rank[:, :3] = 0
    rank[:, 3, :2] = 0
    for image in range(len(rank)):
        rank[image, 3, 2, 1 + np.array([image, image + 1, image + 5]) % 8] = 0
    spec = StoreSpec(images=len(rank), grid=(2, 4), facts={"clean": {"rank": rank}})
    table, _ = table_and_contents(tmp_path, spec, NAME)
    rows = table[(table["condition"] == "clean") & (table["counting"] == "image_tokens")].set_index("measure")
    assert rows.loc["tokens_identifiable", ["value", "low", "high"]].tolist() == [0.375] * 3
    assert rows.loc["images_identifiable", "value"] == 1
    assert rows.loc["cls_identifiable", "value"] == 1


def test_images_without_a_label_have_no_accuracy(tmp_path: Path) -> None:
    table, _ = table_and_contents(tmp_path, StoreSpec(labels=False), NAME)
    assert "accuracy" not in set(table["measure"])
    assert (table["images"] == 12).all()


def test_images_that_a_condition_lacks(tmp_path: Path) -> None:
    """Skipped by both, not reached yet by the twin: each mean is over what is there."""
    measured = {"clean": [1] * 9 + [2, 2, 0], "random_init": [1] * 5 + [0] * 4 + [2, 2, 0]}
    spec = StoreSpec(measured=measured)
    table, written = table_and_contents(tmp_path, spec, NAME)
    counted = table.groupby("condition")["images"].unique()
    assert {condition: list(images) for condition, images in counted.items()} == {"clean": [9], "random_init": [5]}
    rows = table[table["measure"] == "accuracy"].set_index("condition")
    assert rows["images"].to_dict() == {"clean": 9, "random_init": 5}
    for condition, count in rows["images"].items():
        assert rows.loc[condition, "value"] == pytest.approx(written[condition]["correct"][:count].mean())
