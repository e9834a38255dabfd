"""Tokens whose class logit rises from block to block."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.literal import assert_is_twin, logit_entering, positions, share, site_index, table_and_contents
from tests.analysis.stores import StoreSpec

NAME = "change_rate"


@pytest.mark.parametrize(("embed", "prefix"), [(True, ("cls",)), (False, ())])
def test_values(tmp_path: Path, embed: bool, prefix: tuple[str, ...]) -> None:
    spec = StoreSpec(embed=embed, prefix=prefix)
    table, written = table_and_contents(tmp_path, spec, NAME)

    def twin(image: int, block: int, condition: str, tokens: str) -> float:
        facts = written[condition]
        after = facts["logit"][image, site_index(spec, "resid_post"), block]
        return share(
            [after[t] > logit_entering(spec, facts, "logit", image, block, t) for t in positions(spec, tokens)]
        )

    assert_is_twin(table, spec, NAME, twin)
    assert sorted(table["block"].unique()) == list(range(0 if embed else 1, spec.blocks))
