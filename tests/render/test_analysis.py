"""An analysis as a folder: whole or not at all, and every figure from its table alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from classlens.analysis.analyze import Analysis, analyze
from classlens.analysis.registry import EXPERIMENTS
from classlens.core.stats import Statistics
from classlens.errors import ClasslensError
from classlens.render.analysis import figure_name, known_tables, write_analysis, write_figures
from classlens.render.summary import markdown, p_value, summary
from classlens.tasks.tokens.conditions import READINGS
from tests.analysis.stores import Made, write_store
from tests.refusals import refused

QUICK = Statistics(permutations=50, resamples=20)
ALL = ("clean", "random_init", "self_only", "no_cls", "context_removed", "class_removed", "tuned_lens", "probe")


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """Three models, of which the second lacks masks, memories and `[CLS]`."""
    folder = tmp_path_factory.mktemp("stores")
    write_store(folder / "a.zarr", Made(masks=True, conditions=(*ALL, *READINGS), model="first | odd", images=20))
    write_store(folder / "b.zarr", Made(model="second", prefix=(), memories=False, blocks=5))
    write_store(folder / "c.zarr", Made(model="third"))
    return analyze([folder / f"{name}.zarr" for name in "abc"], statistics=QUICK)


@pytest.fixture
def folder(analysis: Analysis, tmp_path: Path) -> Path:
    write_analysis(analysis, tmp_path / "analysis", version="1")
    return tmp_path / "analysis"


def test_tables_are_the_same_in_both_formats(analysis: Analysis, folder: Path) -> None:
    assert set(analysis.tables) == set(EXPERIMENTS)
    for name, table in analysis.tables.items():
        pd.testing.assert_frame_equal(pd.read_parquet(folder / "tables" / f"{name}.parquet"), table)
        # Text cannot tell integers of a column with gaps from floats.
        text = pd.read_csv(folder / "tables" / f"{name}.csv")
        pd.testing.assert_frame_equal(text, table, check_dtype=False)
    record = json.loads((folder / "analysis.json").read_text())
    assert record["tables"] == list(analysis.tables)
    assert [store["model"] for store in record["stores"]] == ["first | odd", "second", "third"]
    assert record["statistics"] == {"seed": 0, "permutations": 50, "resamples": 20, "confidence": 0.95}
    assert {one["reason"] for one in record["missing"]} >= {"memories were not measured: measure anew with --memories"}


def test_each_figure_from_its_table_alone(folder: Path, tmp_path: Path) -> None:
    for name, experiment in EXPERIMENTS.items():
        for ending in ("parquet", "csv"):
            alone = tmp_path / name / ending
            (alone / "tables").mkdir(parents=True)
            table = f"tables/{name}.{ending}"
            (alone / table).write_bytes((folder / table).read_bytes())
            paths = write_figures(alone, formats=["png"])
            assert {path.stem for path in paths} == {figure_name(name, chart.suffix) for chart in experiment.charts}
        png, csv = (sorted((tmp_path / name / ending / "figures").iterdir()) for ending in ("parquet", "csv"))
        for one, other in zip(png, csv, strict=True):
            with Image.open(one) as first, Image.open(other) as second:
                # Not every reader of text gives the last bit back, which may shade some pixels of an edge.
                apart = np.abs(np.asarray(first, dtype=float) - np.asarray(second, dtype=float))
            assert apart.mean() < 0.1  # of 255 levels


def test_both_formats_can_be_opened(folder: Path) -> None:
    paths = write_figures(folder, experiments=["evolution", "agreement_by_class"])
    assert [path.name for path in paths] == [
        "evolution.png",
        "evolution.svg",
        "evolution_on_top.png",
        "evolution_on_top.svg",
        "agreement_by_class.png",
        "agreement_by_class.svg",
    ]
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert min(picture.size) > 300
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_an_analysis_replaces_an_earlier_one_with_its_figures(analysis: Analysis, folder: Path) -> None:
    write_figures(folder, experiments=["evolution"], formats=["png"])
    write_analysis(analysis, folder, version="2")
    assert not (folder / "figures").exists()
    assert set(known_tables(folder)) == set(EXPERIMENTS)


def test_a_folder_with_other_things_is_left_alone(analysis: Analysis, folder: Path) -> None:
    (folder / "tables" / "mine.xlsx").write_text("a year's work")
    refused(lambda: write_analysis(analysis, folder, version="1"), "'tables/mine.xlsx'", "nothing was written")
    assert (folder / "tables" / "mine.xlsx").read_text() == "a year's work"


def test_nothing_half_written_stays(analysis: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classlens.render.analysis.summary", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_analysis(analysis, tmp_path / "analysis", version="1")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_drawn(folder: Path, tmp_path: Path) -> None:
    refused(lambda: write_figures(tmp_path / "nothing"), "has no tables", "classlens analyze --out")
    refused(lambda: write_figures(folder, formats=["pdf"]), "format 'pdf' is not known")
    refused(lambda: write_figures(folder, experiments=["evolutoin"]), "did you mean 'evolution'")
    (folder / "tables" / "evolution.parquet").write_bytes(b"PAR1 no parquet")
    refused(lambda: write_figures(folder, experiments=["evolution"]), "evolution.parquet", "cannot be read")
    (folder / "tables" / "building.parquet").unlink()
    (folder / "tables" / "building.csv").write_text("model,block\na,1\n")
    refused(lambda: write_figures(folder, experiments=["building"]), "has no column 'condition'")
    (tmp_path / "file").write_text("")
    with pytest.raises(ClasslensError, match="figures cannot be written to .*file"):
        write_figures(folder, experiments=["composition"], out=tmp_path / "file")


def test_the_summary_says_what_the_tables_say(analysis: Analysis) -> None:
    text = summary(analysis)
    sections = re.split(r"^## ", text, flags=re.MULTILINE)
    titles = {section.partition("\n")[0]: section for section in sections[1:]}
    assert list(titles) == [experiment.title for experiment in EXPERIMENTS.values()]
    assert "20 resamples" in sections[0]
    assert "95 % bootstrap intervals over images" in sections[0]
    # A bar within a name would begin another cell.
    assert "| first \\| odd | folder:made | 20 | 3 | 5 | clean, random_init, self_only," in sections[0]
    for name, experiment in EXPERIMENTS.items():
        section, table = titles[experiment.title], analysis.tables[name]
        shown = [f"{value:.3f} (" for value in table["value"]]
        if name not in ("mean_evolution", "agreement_by_class"):
            assert sum(value in section for value in shown) > len(shown) / 3, name
        widths = {line.replace("\\|", "").count("|") for line in section.splitlines() if line.startswith("|")}
        assert widths, name
    assert "Not measured for second: the images have no masks: measure a data set that has them" in text
    assert "Not measured for second, in part: the model has no [CLS] token." in text


def test_values_of_one_block_by_hand(analysis: Analysis) -> None:
    table = analysis.tables["change_rate"]
    row = table.query("model == 'second' and condition == 'clean' and tokens == 'image' and block == 2").iloc[0]
    section = summary(analysis).partition("## Class similarity change rate")[2]
    block = section.partition("**second**")[2]
    (line,) = [line for line in block.partition("\n**")[0].splitlines() if line.startswith("| 2 |")]
    assert line.split("|")[2].strip() == f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def test_p_values_are_never_0() -> None:
    assert p_value(2.2e-308) == "< 1e-300"
    assert p_value(1 / 10001) == "0.0001"
    assert p_value(0.0449) == "0.045"
    assert p_value(float("nan")) == ""


def test_markdown_stays_one_line_a_row() -> None:
    assert markdown(["a"], [["one\ntwo"], ["b|c"]]) == "| a |\n| --- |\n| one two |\n| b\\|c |\n"
