"""`classlens tune`: a tuned lens, from unlabeled images to a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from classlens.cli import options as given
from classlens.cli.app import app, loading, reporting


@app.command()
@reporting
def tune(
    model: given.Model,
    data: given.Data,
    out: Annotated[Path, typer.Option(help="The tuned lens: a file ending in .safetensors.")],
    tokens: Annotated[str, typer.Option(help="all, or pooled: those that the head pools alone.")] = "all",
    epochs: Annotated[int, typer.Option(help="At most.")] = 30,
    patience: Annotated[int, typer.Option(help="Epochs in which no block gets better, after which it ends.")] = 4,
    learning_rate: Annotated[float, typer.Option(help="Of Adam, at its start.")] = 1e-3,
    held_out: Annotated[float, typer.Option(help="Share of images by which epochs are chosen.")] = 0.1,
    control: Annotated[bool, typer.Option("--control", help="Match outputs for other images, as a control.")] = False,
    memory: given.Memory = "8GB",
    split: given.Split = None,
    limit: given.Limit = None,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Draw --limit with --seed.")] = False,
    seed: Annotated[int, typer.Option(help="Of held-out images, of their order and of drawn subsets.")] = 0,
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
    log_json: given.LogJson = False,
) -> None:
    """Train a tuned lens on unlabeled images: one affine translator a block, to match the model's output.

    Run again to go on after a stop. The file goes to measure and probe as --tuned-lens.
    """
    from classlens.render.terminal.probes import tuned_record, tuned_table
    from classlens.render.terminal.progress import watched_steps
    from classlens.tasks.tuned_lens.tune import tune as run

    with watched_steps(sys.stdout if log_json else None, str(out)) as report:
        found = run(
            model,
            data,
            out,
            tokens=tokens,  # type: ignore[arg-type]
            epochs=epochs,
            patience=patience,
            learning_rate=learning_rate,
            held_out=held_out,
            control=control,
            memory=memory,
            split=split,
            limit=limit,
            shuffle=shuffle,
            seed=seed,
            batch_size=given.batch_size_of(batch_size),  # type: ignore[arg-type]
            workers=workers,
            skip_bad=skip_bad,
            report=report,
            **loading(model, checkpoint, head, classes, templates, transform, device),
            dtype=dtype,
        )
    if log_json:
        print(tuned_record(found), flush=True)
        return
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    console.print(tuned_table(found))
    console.print(f"TuneResult lens: {found.file}", markup=False)
