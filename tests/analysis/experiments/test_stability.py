"""Changes of the top class from block to block."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

from tests.analysis.experiments.test_decision import is_of
from tests.analysis.literal import assert_is_twin, table_and_contents
from tests.analysis.stores import StoreSpec

NAME = "stability"


def test_values(tmp_path: Path) -> None:
    spec = StoreSpec(blocks=6, classes=7, images=14)
    table, written = table_and_contents(tmp_path, spec, NAME)

    def twin(image: int, condition: str, classes: str, outcome: str, measure: str) -> float | None:
        facts = written[condition]
        if not is_of(facts, image, outcome):
            return None
        top = facts["trajectory_top"][image, 1:].tolist()
        logit = facts["trajectory_top_logit"][image, 1:].astype(float).tolist()
        first = [classes[0] for classes in top]
        shares = [count / len(first) for count in Counter(first).values()]
        weights = [
            {one: math.exp(value) / sum(map(math.exp, logits)) for one, value in zip(classes, logits, strict=True)}
            for classes, logits in zip(top, logit, strict=True)
        ]
        shared = [sum(min(a[one], b[one]) for one in a.keys() & b.keys()) for a, b in pairwise(weights)]
        measures: dict[str, float] = {
            "change_share": sum(a != b for a, b in pairwise(first)) / (len(first) - 1),
            "top_overlap": sum(both / (2 - both) for both in shared) / len(shared),
            "classes_on_top": float(len({one for classes in top for one in classes})),
            "top1_classes": float(len(shares)),
            "top1_mode_share": max(shares),
            "top1_entropy": -sum(share * math.log(share) for share in shares),
        }
        return measures[measure]

    assert_is_twin(table, spec, NAME, twin)
    assert table["measure"].nunique() == 6
