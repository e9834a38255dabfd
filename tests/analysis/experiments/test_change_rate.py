"""Tokens whose class logit rises from block to block."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.literal import assert_is_twin, logit_entering, made_table, place, places, share
from tests.analysis.stores import Made

NAME = "change_rate"


@pytest.mark.parametrize("embed", [True, False])
@pytest.mark.parametrize("prefix", [("cls",), ()])
def test_values(tmp_path: Path, embed: bool, prefix: tuple[str, ...]) -> None:
    made = Made(embed=embed, prefix=prefix)
    table, written = made_table(tmp_path, made, NAME)

    def twin(image: int, block: int, condition: str, tokens: str) -> float:
        facts = written[condition]
        after = facts["logit"][image, place(made, "resid_post"), block]
        return share([after[t] > logit_entering(made, facts, "logit", image, block, t) for t in places(made, tokens)])

    assert_is_twin(table, made, NAME, twin)
    assert sorted(table["block"].unique()) == list(range(0 if embed else 1, made.blocks))
