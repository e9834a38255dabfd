"""Shares of the classes on top after each block."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from classlens.analysis.experiments.decision_classes import OTHER
from classlens.analysis.registry import EXPERIMENTS
from classlens.render.figures.charts import draw
from tests.analysis.literal import assert_is_twin, table_and_contents
from tests.analysis.stores import StoreSpec

NAME = "decision_classes"


def test_values(tmp_path: Path) -> None:
    """Of twelve classes, eight have rows of their own."""
    spec = StoreSpec(classes=12, images=30)
    table, written = table_and_contents(tmp_path, spec, NAME)
    shown = {}
    for condition in ("clean", "random_init"):
        top1 = written[condition]["trajectory_top"][:, 1:, 0].ravel().tolist()
        counts = Counter(top1)
        shown[condition] = sorted(counts, key=lambda category: (-counts[category], category))[:8]

    def twin(image: int, block: int, condition: str, category: int, class_name: str) -> float:
        top1 = int(written[condition]["trajectory_top"][image, block + 1, 0])
        assert class_name == (OTHER if category == -1 else f"class {category}")
        return float((top1 if top1 in shown[condition] else -1) == category)

    assert_is_twin(table, spec, NAME, twin)
    for condition in ("clean", "random_init"):
        rows = table[table["condition"] == condition]
        assert list(rows["class_name"].unique()) == [*(f"class {number}" for number in shown[condition]), OTHER]
        np.testing.assert_allclose(rows.groupby("block")["value"].sum(), 1)


def test_few_classes_have_no_others_and_ribbons_fill_the_figure(tmp_path: Path) -> None:
    """Two classes of one name are two rows and one ribbon."""
    table, _ = table_and_contents(tmp_path, StoreSpec(), NAME)
    assert OTHER not in set(table["class_name"])
    table["class_name"] = table["class_name"].replace("class 3", "class 1")
    figure = draw(EXPERIMENTS[NAME].charts[0], table, "title", EXPERIMENTS[NAME].labels)
    assert figure is not None
    (axes,) = [axes for axes in figure.axes if axes.get_visible()]
    ribbons = axes.collections
    assert len(ribbons) == table[table["condition"] == "clean"]["class_name"].nunique()
    tops = [np.asarray(ribbon.get_paths()[0].vertices)[:, 1].max() for ribbon in ribbons]
    assert abs(max(tops) - 1) < 1e-12
    assert axes.get_ylim() == (0, 1)
