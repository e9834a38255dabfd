"""Where the top-1 class after a block comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.analysis.literal import assert_is_twin, logit_entering, made_table, place, places, share
from tests.analysis.stores import Made

NAME = "composition"


@pytest.mark.parametrize("embed", [True, False])
def test_values(tmp_path: Path, embed: bool) -> None:
    made = Made(embed=embed, classes=3)
    table, written = made_table(tmp_path, made, NAME)

    def twin(image: int, block: int, condition: str, tokens: str, source: str) -> float:
        facts = written[condition]
        hits = []
        for token in places(made, tokens):
            top = facts["top1"][image, :, block, token]
            same = {
                "previous": top[place(made, "resid_post")] == logit_entering(made, facts, "top1", image, block, token),
                "attention": top[place(made, "resid_post")] == top[place(made, "attn_out")],
                "mlp": top[place(made, "resid_post")] == top[place(made, "mlp_out")],
            }
            same["none"] = not any(same.values())
            hits.append(bool(same[source]))
        return share(hits)

    assert_is_twin(table, made, NAME, twin)
    assert set(table["source"]) == {"previous", "attention", "mlp", "none"}


def test_a_class_that_only_the_mlp_has_is_no_composition(tmp_path: Path) -> None:
    """The published code, which never looks at the MLP, would count it as one."""
    top1 = np.zeros((4, 4, 2, 5), dtype=np.int16)
    top1[:, 2:] = 1  # mlp_out and resid_post
    top1[:, 3, 0] = 2
    made = Made(images=4, blocks=2, facts={"clean": {"top1": top1}})
    table, _ = made_table(tmp_path, made, NAME)
    last = table.query("condition == 'clean' and tokens == 'image' and block == 1").set_index("source")["value"]
    assert last.to_dict() == {"previous": 0, "attention": 0, "mlp": 1, "none": 0}
