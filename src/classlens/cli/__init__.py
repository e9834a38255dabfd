"""The command line: parse, call, print. One file a command, in the order in which `--help` shows them."""

# isort: skip_file
from classlens.cli.app import app
from classlens.cli import (
    inspect,
    explain,
    sweep,
    check,
    models,
    memories,
    measure,
    evaluate,
    ablate,
    probe,
    tune,
    means,
    analyze,
    atlas,
    explore,
    check_store,
    figures,
    reliability,
    paper,
)

__all__ = [
    "ablate",
    "analyze",
    "app",
    "atlas",
    "check",
    "check_store",
    "evaluate",
    "explain",
    "explore",
    "figures",
    "inspect",
    "means",
    "measure",
    "memories",
    "models",
    "paper",
    "probe",
    "reliability",
    "sweep",
    "tune",
]
