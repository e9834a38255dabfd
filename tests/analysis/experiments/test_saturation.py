"""When each place settles, and in which order."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from classlens.core.stats import Statistics
from tests.analysis.literal import assert_is_twin, table_and_contents
from tests.analysis.stores import StoreSpec, Values

NAME = "saturation"


def saturated(facts: Values, image: int, place: int, counting: str) -> int:
    sequence = facts["trajectory_top"][image, 1:, place].tolist()
    other = [block for block, category in enumerate(sequence) if category != sequence[-1]]
    return 1 + max(other) if other else (len(sequence) if counting == "published" else 0)


def test_values(tmp_path: Path) -> None:
    spec = StoreSpec(blocks=7, images=20)
    table, written = table_and_contents(tmp_path, spec, NAME)

    def twin(image: int, block: float, condition: str, counting: str, measure: str, place: str) -> float | None:
        facts = written[condition]
        if place != "all":
            own = saturated(facts, image, int(place) - 1, counting)
            return float(own <= block) if measure == "saturated" else float(own)
        kept = saturated(facts, image, 0, counting) <= int(0.85 * 7)
        if measure == "kept":
            return float(kept)
        places = [saturated(facts, image, number, counting) for number in range(5)]
        signs = [1 if a < b else -1 for a, b in combinations(places, 2)]
        return sum(signs) / len(signs) if kept else None

    assert_is_twin(table, spec, NAME, twin)
    of_places = table[table["measure"] == "block"]
    assert of_places["block"].isna().all()
    assert set(of_places["place"]) == set("12345")
    tau = table[table["measure"] == "tau"]
    assert tau["p"].between(0, 1).all()
    assert table[table["measure"] != "tau"]["p"].isna().all()


@pytest.mark.parametrize(("rising", "tau", "p"), [(True, 1.0, 0.01), (False, -1.0, 1.0)])
def test_images_in_and_against_the_order(tmp_path: Path, rising: bool, tau: float, p: float) -> None:
    """Place k changes for the last time at block k, or the other way round; permuting them expects 0."""
    blocks = 8
    top = np.tile(np.arange(5, dtype=np.int16), (12, blocks + 1, 1))
    for place in range(5):
        top[:, : (place if rising else 4 - place) + 1, place] += 5
    spec = StoreSpec(blocks=blocks, classes=10, conditions=("clean",), facts={"clean": {"trajectory_top": top}})
    table, _ = table_and_contents(tmp_path, spec, NAME, Statistics(permutations=99, resamples=5))
    row = table.query("measure == 'tau' and counting == 'exact'").iloc[0]
    assert (row["value"], row["p"]) == (tau, p)
    assert row["shuffled"] == pytest.approx(0)
