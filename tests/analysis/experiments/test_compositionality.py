"""Outputs that are none of their memories."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from classlens.forward.agreement import SUBLAYERS
from tests.analysis.literal import assert_is_twin, positions, share, table_and_contents
from tests.analysis.stores import StoreSpec

NAME = "compositionality"


def test_values(tmp_path: Path) -> None:
    spec = StoreSpec(prefix=("cls", "reg0"))
    table, written = table_and_contents(tmp_path, spec, NAME)

    def twin(image: int, block: int, condition: str, sublayer: str, tokens: str, counted: str) -> float:
        match = written[condition]["memory_match"][image, SUBLAYERS.index(sublayer), block]
        return share([(match[token] == 1) == (counted == "match") for token in positions(spec, tokens)])

    assert_is_twin(table, spec, NAME, twin)
    assert len(table) == 2 * 2 * 2 * 2 * spec.blocks


def test_by_hand(tmp_path: Path) -> None:
    """`[CLS]` always matches, one of four image tokens does; the MLP the other way round; the twin is half there."""
    match = np.zeros((6, 2, 3, 5), dtype=np.int8)
    match[:, 0, :, :2] = 1
    match[:, 1, :, 2:] = 1
    facts = {"clean": {"memory_match": match}, "random_init": {"memory_match": 1 - match}}
    spec = StoreSpec(images=6, facts=facts, measured={"random_init": [1, 1, 1, 2, 0, 0]})
    table, _ = table_and_contents(tmp_path, spec, NAME)
    matches = {("attn", "cls"): 1.0, ("attn", "image"): 1 / 4, ("mlp", "cls"): 0.0, ("mlp", "image"): 3 / 4}
    for row in table.to_dict("records"):
        share_of_matches = matches[row["sublayer"], row["tokens"]]
        same = (row["condition"] == "clean") == (row["counted"] == "match")
        # Equal values of all images, in quarters: exact.
        assert row["value"] == row["low"] == row["high"] == (share_of_matches if same else 1 - share_of_matches)
        assert row["images"] == (6 if row["condition"] == "clean" else 3)


def test_without_cls_there_is_no_row_of_it(tmp_path: Path) -> None:
    table, _ = table_and_contents(tmp_path, StoreSpec(prefix=(), conditions=("clean",)), NAME)
    assert set(table["tokens"]) == {"image"}
    assert set(table["condition"]) == {"clean"}
