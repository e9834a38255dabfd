"""`classlens compare`: two stores of the same images, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from classlens.cli import options
from classlens.cli.app import app, reporting
from classlens.text import say


@app.command()
@reporting
def compare(
    first: Annotated[str, typer.Argument(metavar="FIRST", help="Store of `classlens measure`, such as before.zarr.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="Another one of the same images.")],
    out: Annotated[Path, typer.Option(help="Folder for the page and tables.")] = Path("classlens-comparison"),
    by: Annotated[
        Literal["content", "name"] | None,
        typer.Option(help="Key that matches images; content of their files where both stores have it."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the bootstrap.")] = 0,
    resamples: options.Resamples = 2_000,
    confidence: options.Confidence = 0.95,
) -> None:
    """Compare two models, or one before and after fine-tuning: accuracy, flipped images, heads that changed."""
    from rich.console import Console

    from classlens import __version__
    from classlens.analysis.comparison.compare import compare as run
    from classlens.core.stats import Statistics
    from classlens.render.folders.comparison import write_comparison
    from classlens.render.folders.result_folder import COMPARISON, check_replaceable
    from classlens.render.terminal.comparison import class_changes, comparison_table
    from classlens.render.terminal.progress import progress_bar

    check_replaceable(out, COMPARISON)
    with progress_bar("comparing the stores"):
        statistics = Statistics(seed, resamples=resamples, confidence=confidence)
        result = run(first, second, by=by, statistics=statistics)
        write_comparison(result, out, version=__version__)
    console = Console(emoji=False)
    for table in (comparison_table(result), class_changes(result)):
        if table is not None:
            console.print(table)
    if "heads" in result.attrs["missing"]:
        say(f"Heads were not compared: {result.attrs['missing']['heads']}.")
    say(f"Page: {out / 'compare.html'}")
