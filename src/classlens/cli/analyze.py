"""`classlens analyze`: from stores to tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from classlens.cli import options as given
from classlens.cli.app import app, listed, reporting
from classlens.errors import ClasslensError
from classlens.text import say


@app.command()
@reporting
def analyze(
    stores: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]STORE...", help="Stores of `classlens measure`, under names of your own."),
    ],
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
    from classlens import __version__
    from classlens.analysis.analyze import analyze as run
    from classlens.core.stats import Statistics
    from classlens.render.folders.analysis import write_analysis
    from classlens.render.folders.result_folder import ANALYSIS, check_replaceable
    from classlens.render.terminal.progress import progress_bar

    check_replaceable(out, ANALYSIS)
    with progress_bar("opening the stores") as update:
        result = run(
            named_stores(stores),
            experiments="all" if experiments == "all" else listed(experiments),
            statistics=Statistics(seed, permutations, resamples, confidence),
            report=lambda model, done, images: update(f"analyzing {model}", done, images),
        )
        write_analysis(result, out, version=__version__)
    for missing in result.missing:
        extent = "not measured" if missing.whole else "in part not measured"
        say(f"{missing.model}, {missing.experiment}: {extent}: {missing.reason}")
    for _, row in result.pairs[result.pairs["measure"] == "flipped"].iterrows() if len(result.pairs) else ():
        flips = f"{round(row['difference'] * row['images']):,} of {row['images']:,} predictions"
        say(f"{row['first']} and {row['second']}: {flips} differ.")
    say(f"Tables: {out / 'tables'}")
    say(f"Summary: {out / 'summary.md'}")
    say(f"Figures: classlens figures {out}")


def named_stores(stores: list[str]) -> list[str] | dict[str, str]:
    """Stores by names from ``NAME=STORE``, where all have one; a path that exists is a path, whatever it holds."""
    pairs = {text: text.partition("=") for text in stores}
    named = [
        text
        for text, (name, _, store) in pairs.items()
        if name and store and not set(name) & set("/\\:") and not os.path.exists(text)
    ]
    if not named:
        return stores
    if len(named) < len(stores):
        other = next(text for text in stores if text not in named)
        raise ClasslensError(f"store {other!r} has no name, and {named[0]!r} has one: give names to all, or to none")
    names = [pairs[text][0] for text in stores]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ClasslensError(f"two stores have the name {twice!r}: give each its own")
    return {pairs[text][0]: pairs[text][2] for text in stores}
