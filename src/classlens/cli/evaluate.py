"""`classlens evaluate`: how faithful explanations are, over a data set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from classlens import __version__
from classlens.cli import options as given
from classlens.cli.app import app, listed, loading, reporting
from classlens.errors import ClasslensError


@app.command()
@reporting
def evaluate(
    model: given.Model,
    data: given.Data,
    out: Annotated[Path, typer.Option(help="Folder for the store and the results.")],
    methods: Annotated[
        str, typer.Option(help="Of explain, with commas, options as class_gradient:loss=logit; or all.")
    ] = "all",
    metrics: Annotated[
        str | None,
        typer.Option(
            help="With commas: removal, masking, segmentation, pointing, class_sensitivity, randomization, "
            "completeness; all that model and data allow if left out."
        ),
    ] = None,
    steps: Annotated[str, typer.Option(help="Numbers of tokens kept in token removal, or all, as published.")] = "25",
    ranks: Annotated[
        Path | None, typer.Option(help="Store of probe or measure, for methods stored_rank:condition=NAME.")
    ] = None,
    permutations: Annotated[int, typer.Option(help="Random orders in token removal.")] = 10,
    split: given.Split = None,
    per_class: given.PerClass = None,
    limit: given.Limit = None,
    shuffle: given.Shuffle = False,
    seed: Annotated[int, typer.Option(help="Of random orders, mosaics, the random twin and drawn subsets.")] = 0,
    resamples: given.Resamples = 2_000,
    confidence: given.Confidence = 0.95,
    batch_size: given.BatchSize = "auto",
    workers: given.Workers = None,
    skip_bad: given.SkipBad = False,
    checkpoint: given.Checkpoint = None,
    head: given.Head = None,
    classes: given.Classes = None,
    templates: given.Templates = None,
    transform: given.Transform = None,
    device: given.Device = None,
    dtype: given.Dtype = None,
    engine: given.EngineName = "local",
    address: given.Address = None,
    actors: given.Actors = None,
    gpus: given.Gpus = None,
    log_json: given.LogJson = False,
) -> None:
    """Measure how faithful explanations are: token removal, pixel masking, segmentation, pointing, sanity checks.

    Run again to go on after a stop, or to add methods and metrics.
    """
    from classlens.core.stats import Statistics
    from classlens.engine.ray import Cluster
    from classlens.render.folders.evaluation import write_evaluation
    from classlens.render.folders.result_folder import EVALUATION, check_replaceable
    from classlens.render.terminal.progress import watched
    from classlens.tasks.evaluation.evaluate import evaluate as run

    results = out / "results"
    check_replaceable(results, EVALUATION)
    if steps != "all" and not steps.isdecimal():
        raise ClasslensError(f"steps {steps!r} is no number: give how many numbers of tokens are tried, or all")
    with watched(sys.stdout if log_json else None, str(out)) as (report, finished):
        found = run(
            model,
            data,
            out,
            methods=methods if methods == "all" else listed(methods),
            metrics=None if metrics is None else listed(metrics),
            steps=None if steps == "all" else int(steps),
            permutations=permutations,
            ranks=ranks,
            split=split,
            per_class=per_class,
            limit=limit,
            shuffle=shuffle,
            seed=seed,
            statistics=Statistics(seed, resamples=resamples, confidence=confidence),
            batch_size=given.batch_size_of(batch_size),  # type: ignore[arg-type]
            workers=workers,
            skip_bad=skip_bad,
            engine=engine,  # type: ignore[arg-type]
            cluster=Cluster(address, actors, gpus),
            report=report,
            **loading(model, checkpoint, head, classes, templates, transform, device),
            dtype=dtype,
        )
        finished(found.outcome)
    write_evaluation(found, results, version=__version__)
    if log_json:
        return
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    for name, why in found.missing.items():
        console.print(f"{name}: not measured: {why}", markup=False)
    console.print(f"Summary: {results / 'summary.md'}", markup=False)
    if (results / "curves.png").exists():  # pointing alone has none
        console.print(f"Curves: {results / 'curves.png'}", markup=False)
