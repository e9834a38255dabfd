"""`classlens probe`: linear probes of every token, beside the class projection."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from classlens.cli import options as given
from classlens.cli.app import app, listed, loading, reporting
from classlens.errors import ClasslensError


@app.command()
@reporting
def probe(
    model: given.Model,
    train: Annotated[str, typer.Option(help="Images to train on, as --data of measure.")],
    test: Annotated[str, typer.Option(help="Images to measure, as --data of measure.")],
    out: Annotated[Path, typer.Option(help="Folder for the probes and the store.")],
    sites: Annotated[
        str, typer.Option(help="With commas: embed, attn_out, resid_mid, mlp_out, resid_post.")
    ] = "attn_out,mlp_out,resid_post",
    pooled: Annotated[bool, typer.Option("--pooled", help="One probe of all image tokens of a block.")] = False,
    logistic: Annotated[bool, typer.Option("--logistic", help="scikit-learn's logistic regression.")] = False,
    alpha: Annotated[str, typer.Option(help="Of the ridge, or loo: chosen by leave-one-out.")] = "1",
    tokens: Annotated[str | None, typer.Option(help="all, prefix, image or cls.")] = None,
    memory: given.Memory = "8GB",
    train_split: Annotated[str | None, typer.Option(help="Of --train, such as train.")] = None,
    train_per_class: Annotated[int | None, typer.Option(help="Training images of each class; 10 in the paper.")] = None,
    train_limit: Annotated[int | None, typer.Option(help="Training images at most.")] = None,
    test_split: Annotated[str | None, typer.Option(help="Of --test, such as validation.")] = None,
    test_per_class: Annotated[int | None, typer.Option(help="Test images of each class.")] = None,
    test_limit: Annotated[int | None, typer.Option(help="Test images at most.")] = None,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Draw images with --seed; else the first.")] = False,
    seed: Annotated[int, typer.Option(help="Of drawn subsets.")] = 0,
    batch_size: given.BatchSize = "auto",
    workers: given.Workers = None,
    skip_bad: given.SkipBad = False,
    tuned_lens: given.TunedLens = None,
    checkpoint: given.Checkpoint = None,
    head: given.Head = None,
    classes: given.Classes = None,
    templates: given.Templates = None,
    transform: given.Transform = None,
    device: given.Device = None,
    dtype: given.Dtype = None,
    log_json: given.LogJson = False,
) -> None:
    """Train linear probes of every token, site and block, and measure what they read; run again to go on after a stop.

    What could be read out of each token, beside what the class embedding reads from it. Run again with --pooled or
    --logistic to add other probes, and read the store with analyze, or with evaluate --ranks.
    """
    from classlens.render.terminal.probes import accuracy_table
    from classlens.render.terminal.progress import watched
    from classlens.tasks.probes.probe import Kind
    from classlens.tasks.probes.probe import probe as run

    if pooled and logistic:
        raise ClasslensError("--pooled and --logistic were both given: give one of them")
    kind: Kind = "pooled" if pooled else "logistic" if logistic else "ridge"
    with watched(sys.stdout if log_json else None, str(out)) as (report, finished):
        found = run(
            model,
            train,
            test,
            out,
            sites=listed(sites),
            kind=kind,
            alpha=_number(alpha),
            tokens=tokens,  # type: ignore[arg-type]
            memory=memory,
            train_split=train_split,
            train_per_class=train_per_class,
            train_limit=train_limit,
            test_split=test_split,
            test_per_class=test_per_class,
            test_limit=test_limit,
            shuffle=shuffle,
            seed=seed,
            batch_size=given.batch_size_of(batch_size),  # type: ignore[arg-type]
            workers=workers,
            skip_bad=skip_bad,
            tuned_lens=tuned_lens,
            report=report,
            **loading(model, checkpoint, head, classes, templates, transform, device),
            dtype=dtype,
        )
        finished(found.outcome)
    if log_json:
        return
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    console.print(
        f"Trained {found.trained} probes in {found.seconds:.1f} s, {found.passes} passes over the training images.",
        markup=False,
    )
    console.print(accuracy_table(found.outcome.store))


def _number(alpha: str) -> Any:
    """A number, or what else was given, for the check that says what is wrong with it."""
    try:
        return float(alpha)
    except ValueError:
        return alpha
