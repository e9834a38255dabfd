"""Models of different depth on one axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from classlens.analysis.analyze import analyze
from tests.analysis.literal import QUICK
from tests.analysis.stores import StoreSpec, write_store


def ranks(by_block: list[int], tokens: int = 5) -> np.ndarray:
    """The same rank for all tokens, block by block."""
    return np.broadcast_to(
        np.array(by_block, dtype=np.int16)[None, None, :, None], (4, 4, len(by_block), tokens)
    ).copy()


def test_two_models_by_hand(tmp_path: Path) -> None:
    """Depths 1/2 and 1 of the one, 1/4 to 1 of the other; at 3/4 the first is half-way between its two values."""
    shallow = StoreSpec(images=4, blocks=2, model="a", classes=10, facts={"clean": {"rank": ranks([8, 0])}})
    deep = StoreSpec(images=4, blocks=4, model="b", classes=10, facts={"clean": {"rank": ranks([9, 6, 4, 2])}})
    for name, spec in (("a", shallow), ("b", deep)):
        write_store(tmp_path / f"{name}.zarr", spec)
    result = analyze([tmp_path / "a.zarr", tmp_path / "b.zarr"], experiments=["mean_evolution"], statistics=QUICK)
    table = result.tables["mean_evolution"].query("tokens == 'image'")
    lines = {model: rows.set_index("depth")["value"].to_dict() for model, rows in table.groupby("model")}
    assert lines["a"] == pytest.approx({0.5: 0.2, 1.0: 1.0})
    assert lines["b"] == pytest.approx({0.25: 0.1, 0.5: 0.4, 0.75: 0.6, 1.0: 0.8})
    # Not at 1/4, where the shallow model has not begun.
    assert lines["mean"] == pytest.approx({0.5: 0.3, 0.75: 0.6, 1.0: 0.9})
    assert set(table.query("model == 'mean'")["models"]) == {2}


def test_models_without_cls_count_for_image_tokens_alone(tmp_path: Path) -> None:
    for name, prefix in (("a", ("cls",)), ("b", ()), ("c", ("cls",))):
        write_store(tmp_path / f"{name}.zarr", StoreSpec(model=name, prefix=prefix))
    stores = [tmp_path / f"{name}.zarr" for name in "abc"]
    table = analyze(stores, experiments=["mean_evolution"], statistics=QUICK).tables["mean_evolution"]
    mean = table.query("model == 'mean'").groupby("tokens")["models"].unique()
    assert {tokens: list(count) for tokens, count in mean.items()} == {"cls": [2], "image": [3]}
    image = table.query("tokens == 'image' and depth == 1.0").set_index("model")["value"]
    assert image["mean"] == pytest.approx((image["a"] + image["b"] + image["c"]) / 3)


def test_one_model_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    write_store(tmp_path / "a.zarr", StoreSpec())
    result = analyze(tmp_path / "a.zarr", experiments=["mean_evolution"], statistics=QUICK)
    assert result.tables == {}
    assert [missing.reason for missing in result.missing] == ["models are compared: give two stores or more"]
