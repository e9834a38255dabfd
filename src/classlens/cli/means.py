"""`classlens means`: from a data set to mean activations, the references of ablations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from classlens.cli import options
from classlens.cli.app import app, reporting
from classlens.cli.options import ModelOptions, RunOptions, expand_options
from classlens.text import say


@app.command()
@reporting
@expand_options
def means(
    model: options.Model,
    data: options.Data,
    out: Annotated[Path, typer.Option(help="Means: a file ending in .safetensors.")],
    weights: ModelOptions,
    run: RunOptions,
    by_class: Annotated[bool, typer.Option("--by-class", help="Add means over the images of each class.")] = False,
    split: options.Split = None,
    label_column: options.LabelColumn = None,
    per_class: options.PerClass = None,
    limit: options.Limit = None,
    shuffle: options.Shuffle = False,
    seed: Annotated[int, typer.Option(help="Random seed of drawn samples.")] = 0,
) -> None:
    """Measure mean activations over a data set, to ablate heads, neurons and sublayers to.

    Run again to resume after a stop. classlens.load_means reads the file.
    """
    from classlens.render.terminal.means import means_lines, means_record
    from classlens.render.terminal.progress import watched
    from classlens.tasks.means.means import checkpoint_of
    from classlens.tasks.means.means import means as measure_means

    checkpoint = checkpoint_of(out)
    with watched(sys.stdout if run.log_json else None, str(checkpoint), checkpoint.exists) as (report, _):
        result = measure_means(
            model,
            data,
            out,
            by_class=by_class,
            split=split,
            label_column=label_column,
            per_class=per_class,
            limit=limit,
            shuffle=shuffle,
            seed=seed,
            report=report,
            **run.arguments(),
            **weights.load_options(model),
        )
    if run.log_json:
        print(means_record(result), flush=True)
        return
    for line in means_lines(result):
        say(line)
