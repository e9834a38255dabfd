"""`classlens analyze`: from stores to tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from classlens import __version__
from classlens.cli import options as given
from classlens.cli.app import app, listed, reporting


@app.command()
@reporting
def analyze(
    stores: Annotated[list[str], typer.Argument(metavar="STORE...", help="Stores of `classlens measure`.")],
    out: Annotated[Path, typer.Option(help="Folder for tables and summary.")] = Path("classlens-analysis"),
    experiments: Annotated[str, typer.Option(help="With commas, such as evolution,building; or all.")] = "all",
    seed: Annotated[int, typer.Option(help="Random seed for permutation tests and bootstrap.")] = 0,
    permutations: Annotated[int, typer.Option(help="Number of permutations of each test.")] = 10_000,
    resamples: given.Resamples = 2_000,
    confidence: given.Confidence = 0.95,
) -> None:
    """Turn stores into the paper's numbers: tidy tables with intervals and tests, and a summary.

    Experiments: {experiments}.
    """
    from classlens.analysis.analyze import analyze as run
    from classlens.core.stats import Statistics
    from classlens.render.folders.analysis import write_analysis
    from classlens.render.folders.result_folder import ANALYSIS, check_replaceable
    from classlens.render.terminal.progress import progress_bar

    check_replaceable(out, ANALYSIS)
    with progress_bar("opening the stores") as update:
        result = run(
            stores,
            experiments="all" if experiments == "all" else listed(experiments),
            statistics=Statistics(seed, permutations, resamples, confidence),
            report=lambda model, done, images: update(f"analyzing {model}", done, images),
        )
        write_analysis(result, out, version=__version__)
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    for missing in result.missing:
        extent = "not measured" if missing.whole else "in part not measured"
        console.print(f"{missing.model}, {missing.experiment}: {extent}: {missing.reason}", markup=False)
    console.print(f"Tables: {out / 'tables'}", markup=False)
    console.print(f"Summary: {out / 'summary.md'}", markup=False)
    console.print(f"Figures: classlens figures {out}", markup=False)
