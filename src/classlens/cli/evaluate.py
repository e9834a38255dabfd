"""`classlens evaluate`: measure how faithful explanations are, over a data set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from classlens.cli import options
from classlens.cli.app import app, reporting
from classlens.cli.options import ModelOptions, RunOptions, expand_options, split_names
from classlens.errors import ClasslensError
from classlens.text import say


@app.command()
@reporting
@expand_options
def evaluate(
    model: options.Model,
    data: options.Data,
    out: Annotated[Path, typer.Option(help="Folder for the store and the results.")],
    weights: ModelOptions,
    run: RunOptions,
    methods: Annotated[
        str,
        typer.Option(
            help="Methods, separated by commas, with options as class_gradient:loss=logit, or all: {methods}. Also "
            "file.py:function for maps of another tool."
        ),
    ] = "all",
    metrics: Annotated[
        str,
        typer.Option(
            help="Metrics, separated by commas, or all that model and data allow, but for _black and _blur: {metrics}."
        ),
    ] = "all",
    steps: Annotated[
        str, typer.Option(help="Numbers of tokens kept in token removal, at least 2, or all, as published.")
    ] = "25",
    permutations: Annotated[int, typer.Option(help="Number of random orders in token removal.")] = 10,
    ranks: Annotated[
        Path | None, typer.Option(help="Store of probe or measure, for methods stored_rank:condition=NAME.")
    ] = None,
    maps: options.Maps = None,
    split: options.Split = None,
    label_column: options.LabelColumn = None,
    masks: options.Masks = None,
    mask_values: options.MaskValues = None,
    per_class: options.PerClass = None,
    limit: options.Limit = None,
    shuffle: options.Shuffle = False,
    seed: Annotated[int, typer.Option(help="Random seed of orders, mosaics, the random twin and samples.")] = 0,
    resamples: options.Resamples = 2_000,
    confidence: options.Confidence = 0.95,
) -> None:
    """Evaluate how faithful explanations are: removal, masking, insertion, deletion, ROAD, pointing, sanity checks.

    Run again to resume after a stop, or to add methods and metrics.
    """
    from classlens import __version__
    from classlens.core.stats import Statistics
    from classlens.render.folders.evaluation import write_evaluation
    from classlens.render.folders.result_folder import EVALUATION, check_replaceable
    from classlens.render.terminal.progress import watched
    from classlens.tasks.evaluation.evaluate import evaluate as evaluate_methods
    from classlens.tasks.evaluation.map_importance import parse_maps

    results = out / "results"
    check_replaceable(results, EVALUATION)
    if steps != "all" and not steps.isdecimal():
        raise ClasslensError(f"steps {steps!r} is not a number: give a number of at least 2, or all")
    with watched(sys.stdout if run.log_json else None, str(out)) as (report, finished):
        result = evaluate_methods(
            model,
            data,
            out,
            methods=split_names(methods),
            metrics=split_names(metrics),
            steps="all" if steps == "all" else int(steps),
            permutations=permutations,
            ranks=ranks,
            maps=parse_maps(maps or []),
            split=split,
            label_column=label_column,
            masks=masks,
            mask_values=mask_values,
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
    write_evaluation(result, results, version=__version__)
    if run.log_json:
        return
    for name, reason in result.missing.items():
        say(f"{name}: not measured: {reason}")
    say(f"Summary: {results / 'summary.md'}")
    if (results / "curves.png").exists():  # some metrics have no curves
        say(f"Curves: {results / 'curves.png'}")
