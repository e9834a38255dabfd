"""`classlens measure`: a data set, into a store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from classlens.cli.app import app, listed, loading, reporting


@app.command()
@reporting
def measure(
    model: Annotated[str, typer.Option(help="A model name, as for inspect.")],
    data: Annotated[
        str,
        typer.Option(help="folder:ROOT, list:FILE, imagenet-s:ROOT, cifar10:ROOT, cifar100:ROOT or hf:NAME."),
    ],
    out: Annotated[str, typer.Option(help="The store: a path ending in .zarr, or a URL of fsspec.")],
    conditions: Annotated[
        str,
        typer.Option(help="With commas: clean, random_init, self_only, no_cls, context_removed, class_removed."),
    ] = "clean",
    sites: Annotated[
        str | None, typer.Option(help="With commas: embed, attn_out, resid_mid, mlp_out, resid_post; all if left out.")
    ] = None,
    memories: Annotated[bool, typer.Option("--memories", help="Also key/value memories.")] = False,
    split: Annotated[str | None, typer.Option(help="Of the data, such as validation.")] = None,
    per_class: Annotated[int | None, typer.Option(help="Images of each class; the first in order of names.")] = None,
    limit: Annotated[int | None, typer.Option(help="Images at most.")] = None,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Draw --per-class and --limit with --seed.")] = False,
    seed: Annotated[int, typer.Option(help="Of the random twin, of the control class and of drawn subsets.")] = 0,
    batch_size: Annotated[str, typer.Option(help="auto, 1 to 64, or a multiple of 64.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode images.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Record and leave out unreadable images.")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights: safetensors or state dict.")] = None,
    head: Annotated[Path | None, typer.Option(help="File of a linear head for a backbone of timm.")] = None,
    classes: Annotated[Path | None, typer.Option(help="File of class names: one a line, or JSON.")] = None,
    templates: Annotated[Path | None, typer.Option(help="File of prompts for an OpenCLIP model.")] = None,
    transform: Annotated[str | None, typer.Option(help='"paper" for the transform of the paper.')] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or float64.")] = None,
    engine: Annotated[str, typer.Option(help="local or ray.")] = "local",
    address: Annotated[str | None, typer.Option(help="Ray cluster: auto or ray://HOST:10001.")] = None,
    actors: Annotated[int | None, typer.Option(min=1, help="Copies of the model on the cluster.")] = None,
    gpus: Annotated[float | None, typer.Option(min=0, help="GPUs of each copy, such as 0.5.")] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Progress and outcome as JSON lines.")] = False,
) -> None:
    """Measure every token of a data set in class space, into a store; run again to go on after a stop."""
    from classlens.present.progress import watched
    from classlens.runs.cluster import Cluster
    from classlens.runs.measure import measure as run

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
            batch_size=int(batch_size) if batch_size.isdecimal() else batch_size,  # type: ignore[arg-type]
            workers=workers,
            skip_bad=skip_bad,
            engine=engine,  # type: ignore[arg-type]
            cluster=Cluster(address, actors, gpus),
            report=report,
            **loading(model, checkpoint, head, classes, templates, transform, device),
            dtype=dtype,
        )
        finished(outcome)
