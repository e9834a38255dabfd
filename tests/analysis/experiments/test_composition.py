"""Where the top-1 class after a block comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.analysis.literal import assert_is_twin, logit_entering, positions, share, site_index, table_and_contents
from tests.analysis.stores import StoreSpec

NAME = "composition"


@pytest.mark.parametrize("embed", [True, False])
def test_values(tmp_path: Path, embed: bool) -> None:
    spec = StoreSpec(embed=embed, classes=3)
    table, written = table_and_contents(tmp_path, spec, NAME)

    def twin(image: int, block: int, condition: str, tokens: str, source: str) -> float:
        facts = written[condition]
        hits = []
        for token in positions(spec, tokens):
            top = facts["top1"][image, :, block, token]
            same = {
                "previous": top[site_index(spec, "resid_post")]
                == logit_entering(spec, facts, "top1", image, block, token),
                "attention": top[site_index(spec, "resid_post")] == top[site_index(spec, "attn_out")],
                "mlp": top[site_index(spec, "resid_post")] == top[site_index(spec, "mlp_out")],
            }
            same["none"] = not any(same.values())
            hits.append(bool(same[source]))
        return share(hits)

    assert_is_twin(table, spec, NAME, twin)
    assert set(table["source"]) == {"previous", "attention", "mlp", "none"}


def test_a_class_that_only_the_mlp_has_is_no_composition(tmp_path: Path) -> None:
    """The published code, which never looks at the MLP, would count it as one."""
    top1 = np.zeros((4, 4, 2, 5), dtype=np.int16)
    top1[:, 2:] = 1  # mlp_out and resid_post
    top1[:, 3, 0] = 2
    spec = StoreSpec(images=4, blocks=2, facts={"clean": {"top1": top1}})
    table, _ = table_and_contents(tmp_path, spec, NAME)
    last = table.query("condition == 'clean' and tokens == 'image' and block == 1").set_index("source")["value"]
    assert last.to_dict() == {"previous": 0, "attention": 0, "mlp": 1, "none": 0}
