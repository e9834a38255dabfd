"""`classlens tune`: from unlabeled images to a tuned lens."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from classlens.cli import options
from classlens.cli.app import app, reporting
from classlens.cli.options import ModelOptions, RunOptions, expand_options
from classlens.text import say


@app.command()
@reporting
@expand_options
def tune(
    model: options.Model,
    data: options.Data,
    out: Annotated[Path, typer.Option(help="Tuned lens: a file ending in .safetensors.")],
    weights: ModelOptions,
    run: RunOptions,
    tokens: Annotated[str, typer.Option(help="Tokens of the objective: all, or pooled by the head.")] = "all",
    epochs: Annotated[int, typer.Option(help="Maximum number of epochs.")] = 30,
    patience: Annotated[int, typer.Option(help="Epochs without an improvement before the training ends.")] = 4,
    learning_rate: Annotated[float, typer.Option(help="Initial learning rate of Adam.")] = 1e-3,
    held_out: Annotated[float, typer.Option(help="Share of images that choose the epochs.")] = 0.1,
    control: Annotated[bool, typer.Option("--control", help="Match outputs for other images, as a control.")] = False,
    ram: options.Ram = "8GB",
    split: options.Split = None,
    label_column: options.LabelColumn = None,
    limit: options.Limit = None,
    shuffle: options.Shuffle = False,
    seed: Annotated[int, typer.Option(help="Random seed of held-out images, their order and samples.")] = 0,
) -> None:
    """Train a tuned lens on unlabeled images: one affine translator per block, to match the model's output.

    Run again to resume after a stop. measure and probe take the file as --tuned-lens.
    """
    from classlens.render.terminal.probes import tuned_record, tuned_table
    from classlens.render.terminal.progress import watched
    from classlens.tasks.tuned_lens.tune import checkpoint_of
    from classlens.tasks.tuned_lens.tune import tune as train_lens

    checkpoint = checkpoint_of(out)
    with watched(sys.stdout if run.log_json else None, str(checkpoint), checkpoint.exists) as (report, _):
        result = train_lens(
            model,
            data,
            out,
            tokens=tokens,  # type: ignore[arg-type]
            epochs=epochs,
            patience=patience,
            learning_rate=learning_rate,
            held_out=held_out,
            control=control,
            ram=ram,
            split=split,
            label_column=label_column,
            limit=limit,
            shuffle=shuffle,
            seed=seed,
            report=report,
            **run.arguments(),
            **weights.load_options(model),
        )
    if run.log_json:
        print(tuned_record(result), flush=True)
        return
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    console.print(tuned_table(result))
    say(f"Tuned lens: {result.file}")
