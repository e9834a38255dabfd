"""The registry of experiments, and what is generated from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import classlens
from classlens.analysis.experiment import Experiment
from classlens.analysis.measured_store import Requirement
from classlens.analysis.registry import EXPERIMENTS
from tests.analysis.stores import StoreSpec, write_store
from tests.refusals import refused

PAGE = Path(__file__).parents[2] / "docs" / "analyze.md"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_record_is_complete(name: str) -> None:
    experiment = EXPERIMENTS[name]
    assert experiment.name == name
    assert "\n" not in experiment.label + experiment.about + experiment.definition
    assert experiment.about[0].islower()
    assert experiment.about[-1] != "."
    assert experiment.definition[0].isupper()
    assert experiment.definition[-1] == "."
    assert len({chart.file_stem(name) for chart in experiment.charts}) == len(experiment.charts) > 0


def test_names_are_known_without_heavy_libraries() -> None:
    code = (
        "import sys; from classlens import EXPERIMENTS; print(*EXPERIMENTS); "
        "assert not {'torch', 'pandas', 'matplotlib', 'xarray'} & set(sys.modules)"
    )
    names = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert names == list(EXPERIMENTS)


def needs(experiment: Experiment) -> str:
    """What must be measured for an experiment, as the table of the documentation says it."""

    def words(need: Requirement) -> list[str]:
        conditions = [f"`{name}`" for name in need.any_condition]
        return [
            *(["masks"] if need.masks else []),
            *([" or ".join([", ".join(conditions[:-1]), conditions[-1]])] if conditions else []),
            *(["`--memories`"] if need.memories or need.parameters else []),
            *(["`[CLS]`"] if need.cls else []),
            *(["labels"] if need.labels else []),
        ]

    stores = [f"{experiment.min_stores} stores"] if experiment.min_stores > 1 else []
    return ", ".join([*stores, *(word for need in experiment.needs if not need.optional for word in words(need))])


def test_the_table_of_the_documentation() -> None:
    rows = [
        f"| `{name}` | {experiment.about} | {needs(experiment)} |".replace("|  |", "| |")
        for name, experiment in EXPERIMENTS.items()
    ]
    table = PAGE.read_text(encoding="utf-8").partition("| `--experiments` |")[2].partition("\n\n")[0]
    assert table.splitlines()[2:] == rows, "replace the rows of the table by:\n" + "\n".join(rows)


def test_an_added_experiment_is_run_shown_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One record in the registry is all that analyses, summaries and messages need."""
    from classlens.analysis.experiments import change_rate
    from classlens.render.markdown.analysis import summary

    record = {**vars(change_rate.EXPERIMENT), "name": "own_rate", "label": "An own rate"}
    monkeypatch.setattr(EXPERIMENTS, "_rows", dict(EXPERIMENTS._rows))
    EXPERIMENTS.register("own_rate", Experiment(**record))
    write_store(tmp_path / "a.zarr", StoreSpec(images=4, memories=False))
    result = classlens.analyze(tmp_path / "a.zarr", experiments=["change_rate", "own_rate"])
    assert list(result.tables) == ["change_rate", "own_rate"]
    assert result.tables["own_rate"].equals(result.tables["change_rate"])
    assert "## An own rate\n" in summary(result)
    refused(lambda: classlens.analyze(tmp_path / "a.zarr", experiments="own_rat"), "did you mean 'own_rate'")
