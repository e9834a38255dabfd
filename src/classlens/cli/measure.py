"""`classlens measure`: a data set, into a store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from classlens.cli import options as given
from classlens.cli.app import app, listed, loading, reporting


@app.command()
@reporting
def measure(
    model: given.Model,
    data: given.Data,
    out: Annotated[str, typer.Option(help="The store: a path ending in .zarr, or a URL of fsspec.")],
    conditions: Annotated[
        str,
        typer.Option(
            help="With commas: clean, random_init, self_only, no_cls, context_removed, class_removed, tuned, probe, "
            "probe_pooled, probe_logistic."
        ),
    ] = "clean",
    sites: Annotated[
        str | None, typer.Option(help="With commas: embed, attn_out, resid_mid, mlp_out, resid_post; all if left out.")
    ] = None,
    memories: Annotated[bool, typer.Option("--memories", help="Also key/value memories.")] = False,
    split: given.Split = None,
    per_class: given.PerClass = None,
    limit: given.Limit = None,
    shuffle: given.Shuffle = False,
    seed: Annotated[int, typer.Option(help="Of the random twin, of the control class and of drawn subsets.")] = 0,
    batch_size: given.BatchSize = "auto",
    workers: given.Workers = None,
    skip_bad: given.SkipBad = False,
    tuned_lens: given.TunedLens = None,
    probes: Annotated[Path | None, typer.Option(help="Folder that `classlens probe` wrote; conditions probe….")] = None,
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
    """Measure every token of a data set in class space, into a store; run again to go on after a stop."""
    from classlens.engine.ray import Cluster
    from classlens.render.terminal.progress import watched
    from classlens.tasks.tokens.measure import measure as run

    with watched(sys.stdout if log_json else None, out) as (report, finished):
        outcome = run(
            model,
            data,
            out,
            conditions=listed(conditions),
            sites=None if sites is None else listed(sites),
            memories=memories,
            split=split,
            per_class=per_class,
            limit=limit,
            shuffle=shuffle,
            seed=seed,
            batch_size=given.batch_size_of(batch_size),  # type: ignore[arg-type]
            workers=workers,
            skip_bad=skip_bad,
            tuned_lens=tuned_lens,
            probes=probes,
            engine=engine,  # type: ignore[arg-type]
            cluster=Cluster(address, actors, gpus),
            report=report,
            **loading(model, checkpoint, head, classes, templates, transform, device),
            dtype=dtype,
        )
        finished(outcome)
