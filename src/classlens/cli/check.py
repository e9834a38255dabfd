"""`classlens check`: tokens, blocks and class space of a model, and the measured error of every law."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from classlens.cli.app import app, reporting
from classlens.cli.options import WeightOptions, expand_options


@app.command()
@reporting
@expand_options
def check(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Name of a model of {libraries}; see `classlens models`."),
    ],
    weights: WeightOptions,
    random: Annotated[bool, typer.Option("--random", help="Use random weights; nothing is fetched.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Check that classlens describes a model correctly: print its parts and the measured error of every law.

    The exit code is 0 if all laws hold, 1 if one does not hold, and 2 for an unsupported model.
    """
    from classlens.lens.verify import verify
    from classlens.models.load import load_model
    from classlens.models.redraw import redraw_heads
    from classlens.models.summary import announce
    from classlens.render.terminal.verification import verification, verification_tables

    loaded = load_model(model, **weights.load_options(model), pretrained=not random)
    announce(loaded)
    if random:
        redraw_heads(loaded.view)
    record = verification(loaded.view, verify(loaded.view))
    if as_json:
        json.dump(record, sys.stdout, indent=1, allow_nan=False)
        print()
    else:
        console = Console(emoji=False)
        for table in verification_tables(record):
            console.print(table)
    if not record["holds"]:
        raise typer.Exit(1)
