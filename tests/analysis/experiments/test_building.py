"""Which sublayer raises the class, against either input."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.analysis.literal import assert_is_twin, logit_entering, positions, share, site_index, table_and_contents
from tests.analysis.stores import StoreSpec

NAME = "building"


@pytest.mark.parametrize(("embed", "mid"), [(True, True), (True, False), (False, True)])
def test_values(tmp_path: Path, embed: bool, mid: bool) -> None:
    sites = ("attn_out", "resid_mid", "mlp_out", "resid_post") if mid else ("attn_out", "mlp_out", "resid_post")
    spec = StoreSpec(embed=embed, sites=sites)
    table, written = table_and_contents(tmp_path, spec, NAME)

    def twin(image: int, block: int, condition: str, relative_to: str, sublayer: str, tokens: str) -> float:
        facts = written[condition]
        logits = facts["logit"][image, site_index(spec, f"{sublayer}_out"), block]
        hits = []
        for token in positions(spec, tokens):
            before = logit_entering(spec, facts, "logit", image, block, token)
            if relative_to == "layer_input" and sublayer == "mlp":
                before = float(facts["logit"][image, site_index(spec, "resid_mid"), block, token])
            hits.append(bool(logits[token] > before))
        return share(hits)

    assert_is_twin(table, spec, NAME, twin)
    assert set(table["relative_to"]) == ({"block_input", "layer_input"} if mid else {"block_input"})
    assert sorted(table["block"].unique()) == list(range(0 if embed else 1, spec.blocks))
    attention = table[table["sublayer"] == "attn"]
    by_input = [rows["value"].tolist() for _, rows in attention.groupby("relative_to")]
    assert all(values == by_input[0] for values in by_input), "of attention both inputs are the same"
