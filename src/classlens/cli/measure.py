"""`classlens measure`: from a data set to a store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from classlens.cli import options
from classlens.cli.app import app, reporting
from classlens.cli.options import ModelOptions, RunOptions, expand_options, split_names


@app.command()
@reporting
@expand_options
def measure(
    model: options.Model,
    data: options.Data,
    out: Annotated[str, typer.Option(help="Store: a path ending in .zarr, or a URL of fsspec.")],
    weights: ModelOptions,
    run: RunOptions,
    conditions: Annotated[str, typer.Option(help="Conditions between commas, or all: {conditions}.")] = "clean",
    sites: Annotated[
        str, typer.Option(help="Sites between commas, or all: embed, attn_out, resid_mid, mlp_out, resid_post.")
    ] = "all",
    memories: Annotated[bool, typer.Option("--memories", help="Measure key/value memories as well.")] = False,
    attribution: Annotated[
        bool, typer.Option("--attribution", help="Measure contributions of heads and MLPs as well, for an atlas.")
    ] = False,
    units: Annotated[
        int | None, typer.Option(help="Number of MLP units of each image to measure contributions of, such as 64.")
    ] = None,
    directions: Annotated[
        Path | None, typer.Option(help="Directions (.safetensors) in the place of units, such as a sparse autoencoder.")
    ] = None,
    split: options.Split = None,
    label_column: options.LabelColumn = None,
    masks: options.Masks = None,
    mask_values: options.MaskValues = None,
    per_class: options.PerClass = None,
    limit: options.Limit = None,
    shuffle: options.Shuffle = False,
    seed: Annotated[int, typer.Option(help="Random seed of the random twin, the control class and samples.")] = 0,
    tuned_lens: options.TunedLensFile = None,
    probes: Annotated[Path | None, typer.Option(help="Folder of `classlens probe`, for its conditions.")] = None,
    label_groups: Annotated[
        Path | None, typer.Option(help="CSV or TSV file of lines CLASS,GROUP: store trajectories of groups as well.")
    ] = None,
) -> None:
    """Measure every token of a data set in class space, into a store; run again to resume after a stop."""
    from classlens.render.terminal.progress import watched
    from classlens.tasks.tokens.measure import measure as measure_tokens

    with watched(sys.stdout if run.log_json else None, out) as (report, finished):
        result = measure_tokens(
            model,
            data,
            out,
            conditions=split_names(conditions),
            sites=split_names(sites),
            memories=memories,
            attribution=attribution,
            units=units,
            directions=directions,
            tuned_lens=tuned_lens,
            probes=probes,
            label_groups=label_groups,
            split=split,
            label_column=label_column,
            masks=masks,
            mask_values=mask_values,
            per_class=per_class,
            limit=limit,
            shuffle=shuffle,
            seed=seed,
            report=report,
            **run.arguments(),
            **weights.load_options(model),
        )
        finished(result)
