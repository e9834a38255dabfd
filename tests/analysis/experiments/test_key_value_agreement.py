"""Key-value agreement: within a class first, then over classes."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from classlens.forward.agreement import BY, SUBLAYERS
from tests.analysis.literal import split_into_shards, table_and_contents
from tests.analysis.stores import StoreSpec

NAME = "key_value_agreement"


@pytest.mark.parametrize("conditions", [("clean", "random_init"), ("clean",)])
def test_values(tmp_path: Path, conditions: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    split_into_shards(monkeypatch)
    spec = StoreSpec(images=75, conditions=conditions, prefix=("cls", "reg0"))
    table, written = table_and_contents(tmp_path, spec, NAME)
    assert len(table) == len(conditions) * len(BY) * 2 * spec.blocks
    for row in table.to_dict("records"):
        bits = written[row["condition"]]["key_value_agreement"]
        bits = bits[:, BY.index(row["by"].removeprefix("by_")), SUBLAYERS.index(row["sublayer"]), row["block"]]
        rates = []
        for category in range(spec.classes):
            tokens = [
                bit for image in range(spec.images) for bit in bits[image] if class_of(written, image) == category
            ]
            if tokens:
                rates.append(sum(int(bit) for bit in tokens) / len(tokens))
        assert row["value"] == pytest.approx(sum(rates) / len(rates), abs=1e-12)
        assert row["low"] <= row["value"] <= row["high"]


def class_of(written: dict[str, dict[str, np.ndarray]], image: int) -> int:
    return int(written["clean"]["target"][image])


def test_a_class_counts_once_however_many_images_it_has(tmp_path: Path) -> None:
    """Nine images of one class that always agree, one of another that never does: a half, not nine tenths."""
    target = np.array([0] * 9 + [1], dtype=np.int16)
    bits = np.zeros((10, 3, 2, 3, 5), dtype=np.int8)
    bits[:9] = 1
    spec = StoreSpec(images=10, conditions=("clean",), facts={"clean": {"target": target, "key_value_agreement": bits}})
    table, _ = table_and_contents(tmp_path, spec, NAME)
    assert set(table["value"]) == {0.5}


def test_each_definition_and_sublayer_by_itself(tmp_path: Path) -> None:
    """One definition, sublayer and block at a time agrees in one of five tokens: `[CLS]` counts as one."""
    bits = np.zeros((12, 3, 2, 3, 5), dtype=np.int8)
    wanted = {}
    for number, (by, sublayer, block) in enumerate(product(range(3), range(2), range(3))):
        bits[:, by, sublayer, block, : number % 6] = 1
        wanted[f"by_{BY[by]}", SUBLAYERS[sublayer], block] = number % 6 / 5
    spec = StoreSpec(conditions=("clean",), facts={"clean": {"key_value_agreement": bits}})
    table, _ = table_and_contents(tmp_path, spec, NAME)
    rates = table.set_index(["by", "sublayer", "block"])["value"].to_dict()
    # A mean of equal shares, in float64.
    assert rates == pytest.approx(wanted, abs=1e-12)


def test_classes_that_the_twin_has_not_reached_count_for_nothing(tmp_path: Path) -> None:
    """Of the twin three images are there: two of class 0, of which one agrees, and one of class 1 that does not."""
    target = np.array([0, 0, 1, 2, 2], dtype=np.int16)
    bits = np.ones((5, 3, 2, 3, 5), dtype=np.int8)
    bits[1:3] = 0
    spec = StoreSpec(
        images=5,
        facts={name: {"target": target, "key_value_agreement": bits} for name in ("clean", "random_init")},
        measured={"random_init": [1, 1, 1, 2, 0]},
    )
    table, _ = table_and_contents(tmp_path, spec, NAME)
    rows = table.groupby("condition")[["value", "images"]].agg(["min", "max"])
    assert rows.loc["clean"].tolist() == pytest.approx([(1 / 2 + 0 + 1) / 3] * 2 + [5, 5], abs=1e-12)
    assert rows.loc["random_init"].tolist() == pytest.approx([(1 / 2 + 0) / 2] * 2 + [3, 3], abs=1e-12)


@pytest.mark.parametrize(("classes", "chance"), [(4, 1.0), (10, 1 - 0.5**5), (1000, 1 - 0.995**5)])
def test_chance_of_random_memories(tmp_path: Path, classes: int, chance: float) -> None:
    """Five sets of five random classes hold the class of a token that often; other definitions have no such chance."""
    table, _ = table_and_contents(tmp_path, StoreSpec(conditions=("clean",), classes=classes), NAME)
    by_value = table["by"] == "by_value"
    assert table["chance"][by_value].tolist() == pytest.approx([chance] * int(by_value.sum()), abs=1e-12)
    assert table["chance"][~by_value].isna().all()
    random = np.random.default_rng(0)
    best = np.argsort(random.random((4000, 5, classes)), axis=-1)[..., :5]
    assert float((best == 1).any(axis=(1, 2)).mean()) == pytest.approx(chance, abs=4 * 0.5 / 4000**0.5)
