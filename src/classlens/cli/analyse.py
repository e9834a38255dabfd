"""`classlens analyse` and `classlens figures`: from stores to tables, and from tables to figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from classlens import __version__
from classlens.cli.app import app, listed, reporting, waiting


@app.command()
@reporting
def analyse(
    stores: Annotated[list[str], typer.Argument(metavar="STORE...", help="What `classlens measure` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for tables and summary.")] = Path("classlens-analysis"),
    experiments: Annotated[
        str | None, typer.Option(help="With commas, such as evolution,building; all if left out.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of permutations and resamples.")] = 0,
    permutations: Annotated[int, typer.Option(help="Of each permutation test.")] = 10_000,
    resamples: Annotated[int, typer.Option(help="Of each bootstrap interval.")] = 2_000,
    confidence: Annotated[float, typer.Option(help="Of intervals.")] = 0.95,
) -> None:
    """Turn stores into the paper's numbers: tidy tables with honest statistics, and a summary.

    Experiments: identifiability, evolution, mean_evolution, change_rate, class_vs_context, attention_edits,
    context_removal, building, composition, class_value_agreement, key_value_agreement, agreement_by_class,
    agreement_accuracy, compositionality.
    """
    from classlens.core.stats import Statistics
    from classlens.experiments.analyse import analyse as run
    from classlens.present.analysis import write_analysis
    from classlens.present.folder import ANALYSIS, check_replaceable

    check_replaceable(out, ANALYSIS)
    with waiting("opening the stores") as progress:
        found = run(
            stores,
            experiments=None if experiments is None else listed(experiments),
            statistics=Statistics(seed, permutations, resamples, confidence),
            report=lambda model, done, images: progress(f"reading {model}", done, images),
        )
        write_analysis(found, out, version=__version__)
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    for one in found.missing:
        part = "not measured" if one.whole else "in part not measured"
        console.print(f"{one.model}, {one.experiment}: {part}: {one.reason}", markup=False)
    console.print(f"Tables: {out / 'tables'}", markup=False)
    console.print(f"Summary: {out / 'summary.md'}", markup=False)
    console.print(f"Figures: classlens figures {out}", markup=False)


@app.command()
@reporting
def figures(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `classlens analyse` wrote.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the figures; DIR/figures if left out.")] = None,
    experiments: Annotated[str | None, typer.Option(help="With commas; all if left out.")] = None,
    formats: Annotated[str, typer.Option(help="With commas: png, svg.")] = "png,svg",
) -> None:
    """Draw the figures of an analysis, each from its table alone."""
    from classlens.present.analysis import write_figures

    with waiting("drawing") as progress:
        paths = write_figures(
            folder,
            experiments=None if experiments is None else listed(experiments),
            formats=listed(formats),
            out=out,
            report=lambda done, tables: progress("drawing", done, tables),
        )
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    for path in paths:
        console.print(str(path), markup=False)
