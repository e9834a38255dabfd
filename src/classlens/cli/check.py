"""`classlens check` and `classlens models`: which models are read, and whether one is read right."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from classlens.cli.app import app, reporting


@app.command()
@reporting
def check(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A model name, as for inspect, or FILE.py:FUNCTION."),
    ],
    checkpoint: Annotated[Path | None, typer.Option(help="Weights: safetensors or state dict.")] = None,
    num_classes: Annotated[int | None, typer.Option(help="Rows of the head, where the model has none.")] = None,
    head: Annotated[Path | None, typer.Option(help="File of a linear head for a backbone of timm.")] = None,
    classes: Annotated[Path | None, typer.Option(help="File of class names, or of OpenCLIP's prompts.")] = None,
    random: Annotated[bool, typer.Option("--random", help="Random weights: nothing is fetched.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Check that a model is read right: its tokens, blocks and class space, and the measured error of every law.

    Exits with 0 when all laws hold, with 1 when one does not, with 2 for a model that cannot be read.
    """
    from classlens.lens.verify import verify
    from classlens.models.classes import read_class_names
    from classlens.models.load import load_model
    from classlens.models.redraw import redraw_heads
    from classlens.render.terminal.verification import verification, verification_tables

    names = None if classes is None else read_class_names(classes)
    loaded = load_model(
        model,
        checkpoint=checkpoint,
        num_classes=num_classes,
        head=head,
        class_names=names,
        device=device,
        pretrained=not random,
    )
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


@app.command()
@reporting
def models(
    family: Annotated[str | None, typer.Option(help="Only this family, such as DINOv2.")] = None,
    search: Annotated[str | None, typer.Option(help="Only models in which all these words occur.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the models that can be read, and whether their weights are on this machine."""
    from classlens.models.families import known
    from classlens.render.terminal.models import filter_models, listing, records

    found = filter_models(known(), family, search)
    if as_json:
        json.dump({"models": records(found)}, sys.stdout, indent=1)
        print()
        return
    terminal = Console(emoji=False)
    # In a file or a pipe there is no width to keep to, and a name that is cut in two cannot be searched for.
    console = terminal if terminal.is_terminal else Console(emoji=False, width=200)
    console.print(listing(found), highlight=False)
