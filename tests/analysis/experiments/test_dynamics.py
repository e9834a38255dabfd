"""Areas and changes over blocks, and the two classes on top at the end."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from classlens.analysis.registry import EXPERIMENTS
from classlens.render.figures.charts import draw
from tests.analysis.experiments.test_decision import GROUPS, is_of, prefix_of
from tests.analysis.literal import assert_is_twin, table_and_contents
from tests.analysis.stores import StoreSpec

NAME = "dynamics"


@pytest.mark.parametrize(("number", "blocks"), [(5, 6), (2, 3), (5, 1)])
def test_values(tmp_path: Path, number: int, blocks: int) -> None:
    spec = StoreSpec(blocks=blocks, classes=number, images=14, label_groups=GROUPS if number == 5 else ())
    table, written = table_and_contents(tmp_path, spec, NAME)

    def twin(image: int, condition: str, classes: str, outcome: str, measure: str) -> float | None:
        facts, count = written[condition], 2 if classes == "groups" else number
        if not is_of(facts, image, outcome, classes):
            return None
        after = {
            name: facts[f"{prefix_of(classes)}_{name}"][image, 1:].astype(float)
            for name in ("entropy", "rank", "logit", "logsumexp", "final_logit")
        }
        rising = {
            "entropy": [-value for value in after["entropy"]],
            "reciprocal_rank": [1 / (rank + 1) - 1 / count for rank in after["rank"]],
            "log_probability": [a - b for a, b in zip(after["logit"], after["logsumexp"], strict=True)],
        }
        d = [row[0] - row[1] for row in after["final_logit"]]
        never = [start for start in range(blocks) if all(value >= 0 for value in d[start:])]
        two = {
            "area_for": math.fsum(max(value, 0) for value in d),
            "area_against": math.fsum(max(-value, 0) for value in d),
            "change_of_mind": min(0, d[-1]) - min(d),
            "time_to_decision": ((never[0] if never else blocks - 1) + 1) / blocks,
        }
        if measure in two:
            return float(two[measure])
        name, _, kind = measure.rpartition("_")
        if kind == "area":
            return float(math.fsum(abs(value) for value in rising[name]))
        changes = [b - a for a, b in zip(rising[name][:-1], rising[name][1:], strict=True)]
        return 1 + changes.index(max(changes)) if changes else None

    assert_is_twin(table, spec, NAME, twin)
    assert set(table["classes"]) == ({"classes", "groups"} if spec.label_groups else {"classes"})
    drawn = [draw(chart, table, "title", EXPERIMENTS[NAME].labels) is not None for chart in EXPERIMENTS[NAME].charts]
    assert drawn == [True, bool(spec.label_groups)]
    assert table["measure"].nunique() == (10 if blocks > 1 else 7)
