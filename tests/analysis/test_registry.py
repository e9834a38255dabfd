"""The registry of experiments, and what is generated from it."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import classlens
from classlens.analysis.experiment import Experiment
from classlens.analysis.registry import EXPERIMENTS
from tests.analysis.stores import StoreSpec, write_store
from tests.refusals import refused

DOCS = Path(__file__).parents[2] / "docs"


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


def test_needs_in_the_table_of_the_documentation() -> None:
    hooks: Any = runpy.run_path(str(DOCS / "hooks.py"))
    needs = {name: hooks["needs_of_experiment"](name, experiment) for name, experiment in EXPERIMENTS.items()}
    assert {name: needs[name] for name in ("evolution", "mean_evolution", "agreement_accuracy", "context_removal")} == {
        "evolution": "",
        "mean_evolution": "2 stores",
        "agreement_accuracy": "`--memories`, `[CLS]`, labels",
        "context_removal": "masks, `context_removed` or `class_removed`",
    }
    assert all(f"| `{name}` |" in hooks["filled"]("experiments") for name in EXPERIMENTS)
    assert "<!-- table: experiments -->" in (DOCS / "analyze.md").read_text(encoding="utf-8")


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
