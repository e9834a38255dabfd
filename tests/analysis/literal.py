"""Tables of experiments held against slow literal twins: one image, one block, one row at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from classlens.analysis import measured_store
from classlens.analysis.analyze import analyze
from classlens.analysis.registry import EXPERIMENTS
from classlens.core.stats import Statistics
from tests.analysis.stores import StoreSpec, Values, write_store

QUICK = Statistics(permutations=100, resamples=30)
Twin = Callable[..., float | None]
"""The value of one image, from ``image``, ``block`` and the keys of a row; None where it has none."""


def table_and_contents(
    path: Path, spec: StoreSpec, name: str, statistics: Statistics = QUICK
) -> tuple[pd.DataFrame, dict[str, Values]]:
    """The table of one experiment on a store, and the arrays of the store by condition."""
    written = write_store(path / "made.zarr", spec)
    return analyze(path / "made.zarr", experiments=[name], statistics=statistics).tables[name], written


def assert_is_twin(table: pd.DataFrame, spec: StoreSpec, name: str, twin: Twin) -> None:
    """Every row is the mean over images of what the twin says, over as many images."""
    keys = EXPERIMENTS[name].keys
    for row in table.to_dict("records"):
        where = {key: row[key] for key in keys} | ({"block": row["block"]} if "block" in row else {})
        values = [value for image in range(spec.images) if (value := twin(image=image, **where)) is not None]
        assert len(values) == row["images"], where
        # Sums of a few shares in float64.
        assert row["value"] == pytest.approx(sum(values) / len(values), abs=1e-12), where
        assert row["low"] - 1e-12 <= row["value"] <= row["high"] + 1e-12 or row["images"] < 4, where


def site_index(spec: StoreSpec, site: str) -> int:
    return spec.sites.index(site)


def positions(spec: StoreSpec, tokens: str) -> list[int]:
    """Places of the tokens of a group, in words of the vocabulary."""
    count = spec.grid[0] * spec.grid[1]
    kinds = [*spec.prefix, *["image"] * count]
    return [number for number, kind in enumerate(kinds) if tokens == "all" or kind == tokens]


def logit_entering(spec: StoreSpec, facts: Values, name: str, image: int, block: int, token: int) -> float:
    """A fact of the stream that a block takes in: the embedding's, or that of the block before."""
    if block == 0:
        return float(facts[f"embed_{name}"][image, token])
    return float(facts[name][image, site_index(spec, "resid_post"), block - 1, token])


def share(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


def split_into_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores are read a shard at a time, as large ones are."""
    monkeypatch.setattr(measured_store, "_MAX_VALUES", 1)


def numbers(column: pd.Series[float]) -> np.ndarray:
    return np.asarray(column.to_numpy(dtype=np.float64))
