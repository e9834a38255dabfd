"""Commitment, entropy and margin after each block, of right and wrong predictions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from classlens.analysis.analyze import analyze
from classlens.analysis.registry import EXPERIMENTS
from classlens.render.figures.charts import draw
from tests.analysis.literal import QUICK, assert_is_twin, table_and_contents
from tests.analysis.stores import StoreSpec, Values, write_store

NAME = "decision"


GROUPS = (1, 0, -1, 0, 1)
"""The groups of five classes."""


def prefix_of(classes: str) -> str:
    return {"classes": "trajectory", "groups": "group_trajectory"}[classes]


def target_of(facts: Values, image: int, classes: str) -> int:
    """The class of interest, or its group."""
    target = int(facts["target"][image])
    return target if classes == "classes" else GROUPS[target]


def is_of(facts: Values, image: int, outcome: str, classes: str = "classes") -> bool:
    """Whether an image has the outcome, in words of the table."""
    target = target_of(facts, image, classes)
    right = (
        facts[f"{prefix_of(classes)}_top"][image, -1, 0] == target if classes == "groups" else facts["correct"][image]
    )
    return target >= 0 and (outcome == "all" or right == (outcome == "correct"))


@pytest.mark.parametrize("blocks", [1, 4])
def test_values(tmp_path: Path, blocks: int) -> None:
    conditions = ("clean", "random_init", "tuned_lens", "no_cls")
    spec = StoreSpec(blocks=blocks, images=14, conditions=conditions, label_groups=GROUPS)
    table, written = table_and_contents(tmp_path, spec, NAME)

    def twin(image: int, block: int, condition: str, classes: str, outcome: str, measure: str) -> float | None:
        facts, of = written[condition], prefix_of(classes)
        if not is_of(facts, image, outcome, classes):
            return None
        top1 = facts[f"{of}_top"][image, 1:, 0].tolist()
        target, logit = target_of(facts, image, classes), float(facts[f"{of}_logit"][image, block + 1])
        top, tops = (facts[f"{of}_{name}"][image, block + 1].tolist() for name in ("top", "top_logit"))
        measures: dict[str, float] = {
            "committed": float(len(set(top1[block:])) == 1),
            "on_top": float(facts[f"{of}_rank"][image, block + 1] == 0),
            "entropy": float(facts[f"{of}_entropy"][image, block + 1]),
            "margin": logit - max(other for one, other in zip(top, tops, strict=True) if one != target),
            "log_probability": logit - float(facts[f"{of}_logsumexp"][image, block + 1]),
        }
        return measures[measure]

    assert_is_twin(table, spec, NAME, twin)
    assert set(table["condition"]) == {"clean", "random_init", "tuned_lens"}
    assert set(table["outcome"]) == {"all", "correct", "wrong"}
    assert len(table) == 3 * 2 * 3 * 5 * blocks
    images = table.query("outcome == 'all'").groupby("classes")["images"].max()
    assert images["groups"] == sum(GROUPS[target] >= 0 for target in written["clean"]["target"]) < images["classes"]
    assert (table.query(f"measure == 'committed' and block == {blocks - 1}")["value"] == 1).all()


def test_images_without_a_label_or_a_trajectory(tmp_path: Path) -> None:
    facts = {"trajectory_top": np.full((12, 4, 5), -1, dtype=np.int16)}
    spec = StoreSpec(labels=False, facts={"random_init": facts})
    table, _ = table_and_contents(tmp_path, spec, NAME)
    assert set(table["outcome"]) == {"all"}
    assert set(table["condition"]) == {"clean"}, "fill values are no decision"


def test_a_store_of_an_earlier_version_lacks_it_and_the_others(tmp_path: Path) -> None:
    write_store(tmp_path / "made.zarr", StoreSpec(trajectory=False, norms=False))
    names = [NAME, "decision_classes", "saturation", "dynamics", "stability"]
    by_norm = ["norms", "outliers", "outlier_classes"]
    result = analyze(tmp_path / "made.zarr", experiments=[*names, *by_norm, "change_rate"], statistics=QUICK)
    assert list(result.tables) == ["change_rate"]
    assert [(missing.experiment, missing.whole) for missing in result.missing if missing.whole] == [
        (name, True) for name in (*names, *by_norm)
    ]
    reasons = {missing.experiment: missing.reason for missing in result.missing if missing.whole}
    assert all("without decision trajectories" in reasons[name] for name in names)
    assert all("without token norms" in reasons[name] for name in by_norm)


def test_figures(tmp_path: Path) -> None:
    """Entropy has an axis of its own; right and wrong are two lines."""
    table, _ = table_and_contents(tmp_path, StoreSpec(), NAME)
    committed, entropy, _ = EXPERIMENTS[NAME].charts
    figure = draw(entropy, table, "title", EXPERIMENTS[NAME].labels)
    assert figure is not None
    (axes,) = [axes for axes in figure.axes if axes.get_visible()]
    assert len(axes.get_lines()) == 2
    assert axes.get_ylim()[1] < math.log(5) + 0.3
    figure = draw(committed, table, "title", EXPERIMENTS[NAME].labels)
    assert figure is not None
    (axes,) = [axes for axes in figure.axes if axes.get_visible()]
    assert len(axes.get_lines()) == 6
