"""Outputs that are none of their memories."""

from __future__ import annotations

from pathlib import Path

from classlens.hooks.reducing import SUBLAYERS
from tests.experiments.stores import Made
from tests.experiments.twins import assert_is_twin, made_table, places, share

NAME = "compositionality"


def test_values(tmp_path: Path) -> None:
    made = Made(prefix=("cls", "reg0"))
    table, written = made_table(tmp_path, made, NAME)

    def twin(image: int, block: int, condition: str, sublayer: str, tokens: str, counted: str) -> float:
        match = written[condition]["memory_match"][image, SUBLAYERS.index(sublayer), block]
        return share([(match[token] == 1) == (counted == "match") for token in places(made, tokens)])

    assert_is_twin(table, made, NAME, twin)
    assert len(table) == 2 * 2 * 2 * 2 * made.blocks
