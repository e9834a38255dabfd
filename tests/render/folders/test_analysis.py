"""An analysis as a folder: complete or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from classlens.analysis.analyze import AnalyzeResult
from classlens.analysis.registry import EXPERIMENTS
from classlens.render.folders.analysis import read_table, table_path, write_analysis
from tests.refusals import refused


@pytest.fixture
def folder(three_models: AnalyzeResult, tmp_path: Path) -> Path:
    write_analysis(three_models, tmp_path / "analysis", version="1")
    return tmp_path / "analysis"


def test_tables_are_the_same_in_both_formats(three_models: AnalyzeResult, folder: Path) -> None:
    assert set(three_models.tables) == set(EXPERIMENTS)
    for name, table in three_models.tables.items():
        parquet, csv = (folder / "tables" / f"{name}.{ending}" for ending in ("parquet", "csv"))
        assert table_path(folder, EXPERIMENTS[name]) == parquet
        pd.testing.assert_frame_equal(read_table(parquet, EXPERIMENTS[name]), table)
        # Text cannot tell integers of a column with gaps from floats.
        pd.testing.assert_frame_equal(read_table(csv, EXPERIMENTS[name]), table, check_dtype=False)
    for name in ("images", "pairs", "flips"):
        table = three_models.all_tables[name]
        pd.testing.assert_frame_equal(pd.read_parquet(folder / "tables" / f"{name}.parquet"), table)
    record = json.loads((folder / "analysis.json").read_text())
    assert record["tables"] == list(three_models.all_tables)
    assert [store["model"] for store in record["stores"]] == ["first | odd", "second", "third"]
    assert record["statistics"] == {"seed": 0, "permutations": 50, "resamples": 20, "confidence": 0.95}
    reasons = {missing["reason"] for missing in record["missing"]}
    assert "memories were not measured: measure anew with --memories" in reasons


def test_an_analysis_replaces_an_earlier_one_with_its_figures(three_models: AnalyzeResult, folder: Path) -> None:
    (folder / "figures").mkdir()
    (folder / "figures" / "evolution_on_top.png").write_text("drawn from earlier tables")
    (folder / "tables" / "evolution.csv").unlink()
    write_analysis(three_models, folder, version="2")
    assert not (folder / "figures").exists()
    assert {path.stem for path in (folder / "tables").glob("*.csv")} == {*EXPERIMENTS, "images", "pairs", "flips"}
    assert json.loads((folder / "analysis.json").read_text())["classlens"] == "2"


def test_a_folder_with_other_things_is_left_alone(three_models: AnalyzeResult, folder: Path) -> None:
    (folder / "tables" / "mine.xlsx").write_text("a year's work")
    refused(lambda: write_analysis(three_models, folder, version="1"), "'tables/mine.xlsx'", "nothing was written")
    assert (folder / "tables" / "mine.xlsx").read_text() == "a year's work"


def test_nothing_half_written_stays(
    three_models: AnalyzeResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("classlens.render.folders.analysis.summary", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_analysis(three_models, tmp_path / "analysis", version="1")
    assert list(tmp_path.iterdir()) == []
