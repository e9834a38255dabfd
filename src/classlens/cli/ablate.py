"""`classlens ablate`: what every head does, over a data set, and tests of the heads that matter."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from classlens.cli import options
from classlens.cli.app import app, reporting
from classlens.cli.options import ModelOptions, RunOptions, expand_options, split_names
from classlens.text import say


@app.command()
@reporting
@expand_options
def ablate(
    model: options.Model,
    data: options.Data,
    to: Annotated[str, typer.Option(help="File of `classlens means`, or zero: what replaces the outputs of heads.")],
    out: Annotated[Path, typer.Option(help="Folder for the store and the results.")],
    weights: ModelOptions,
    run: RunOptions,
    heads: Annotated[int, typer.Option(help="Number of heads that a test ablates together.")] = 3,
    draws: Annotated[int, typer.Option(help="Number of random sets of heads.")] = 5,
    test_classes: Annotated[
        str,
        typer.Option(help="Classes whose heads are tested, between commas; all takes the 20 with most images."),
    ] = "all",
    pairs: Annotated[int, typer.Option(help="Maximum number of confusions that are examined.")] = 10,
    split: options.Split = None,
    label_column: options.LabelColumn = None,
    per_class: options.PerClass = None,
    limit: options.Limit = None,
    shuffle: options.Shuffle = False,
    seed: Annotated[int, typer.Option(help="Random seed of the split, the random heads and the drawn images.")] = 0,
    resamples: options.Resamples = 2_000,
    confidence: options.Confidence = 0.95,
) -> None:
    """Ablate every head over a data set: effects by class, held-out tests, and what tips confusions.

    Run again to resume after a stop.
    """
    from classlens import __version__
    from classlens.core.stats import Statistics
    from classlens.render.folders.ablation import write_ablation
    from classlens.render.folders.result_folder import ABLATION, check_replaceable
    from classlens.render.terminal.progress import watched
    from classlens.tasks.ablation.ablate import ablate as ablate_heads

    results = out / "results"
    check_replaceable(results, ABLATION)
    with watched(sys.stdout if run.log_json else None, str(out)) as (report, finished):
        result = ablate_heads(
            model,
            data,
            out,
            to=to,
            heads=heads,
            draws=draws,
            classes=split_names(test_classes),
            pairs=pairs,
            split=split,
            label_column=label_column,
            per_class=per_class,
            limit=limit,
            shuffle=shuffle,
            seed=seed,
            statistics=Statistics(seed, resamples=resamples, confidence=confidence),
            report=report,
            **run.arguments(),
            **weights.load_options(model),
        )
        finished(result.run)
    write_ablation(result, results, version=__version__)
    if not run.log_json:
        say(f"Summary: {results / 'summary.md'}")
