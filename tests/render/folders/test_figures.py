"""Figures of an analysis, each from its table alone."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from classlens.analysis.analyze import AnalyzeResult
from classlens.analysis.registry import EXPERIMENTS
from classlens.errors import ClasslensError
from classlens.render.folders.analysis import write_analysis
from classlens.render.folders.figures import figures
from tests.refusals import refused


@pytest.fixture(scope="module")
def folder(three_models: AnalyzeResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("analysis") / "analysis"
    write_analysis(three_models, path, version="1")
    return path


def alone(folder: Path, table: str, path: Path) -> Path:
    """A folder with one table of another one."""
    (path / "tables").mkdir(parents=True)
    (path / "tables" / table).write_bytes((folder / "tables" / table).read_bytes())
    return path


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_figure_from_its_table_alone(name: str, folder: Path, tmp_path: Path) -> None:
    """Text is the harder source: it has no types."""
    paths = figures(alone(folder, f"{name}.csv", tmp_path / "csv"), formats="png")
    assert [path.stem for path in paths] == [chart.file_stem(name) for chart in EXPERIMENTS[name].charts]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("name", ["change_rate", "context_removal", "agreement_by_class"])
def test_both_sources_give_the_same_figure(name: str, folder: Path, tmp_path: Path) -> None:
    """Lines, dots and a heat map."""
    (parquet,), (csv,) = (
        figures(alone(folder, f"{name}.{ending}", tmp_path / ending), formats=["png"]) for ending in ("parquet", "csv")
    )
    with Image.open(parquet) as first, Image.open(csv) as second:
        # Not every reader of text returns the last bit, which may shade some pixels of an edge.
        difference = np.abs(np.asarray(first, dtype=float) - np.asarray(second, dtype=float))
    assert difference.mean() < 0.1  # of 255 levels


def test_both_formats_can_be_opened(folder: Path, tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    paths = figures(
        folder,
        experiments=["evolution", "agreement_by_class"],
        out=tmp_path,
        report=lambda *progress: reports.append(progress),
    )
    assert [path.name for path in paths] == [
        "evolution.png",
        "evolution.svg",
        "evolution_on_top.png",
        "evolution_on_top.svg",
        "agreement_by_class.png",
        "agreement_by_class.svg",
    ]
    assert reports == [(0, 2), (1, 2), (2, 2)]
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert min(picture.size) > 300
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_what_cannot_be_drawn(folder: Path, tmp_path: Path) -> None:
    refused(lambda: figures(tmp_path / "nothing"), "has no tables", "classlens analyze --out")
    refused(lambda: figures(folder, formats=["pdf"]), "format 'pdf' is not known")
    refused(lambda: figures(folder, experiments=["evolutoin"]), "did you mean 'evolution'")
    tables = tmp_path / "broken" / "tables"
    tables.mkdir(parents=True)
    (tables / "evolution.parquet").write_bytes(b"PAR1 no parquet")
    refused(lambda: figures(tmp_path / "broken"), "evolution.parquet", "cannot be read")
    (tables / "building.csv").write_text("model,block\na,1\n")
    refused(lambda: figures(tmp_path / "broken", experiments="building"), "has no column 'condition'")
    (tmp_path / "file").write_text("")
    with pytest.raises(ClasslensError, match="figures cannot be written to .*file"):
        figures(folder, experiments=["composition"], out=tmp_path / "file")
