"""`classlens check`: tokens, blocks and class space of a model, and the measured error of every law."""

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
        typer.Argument(metavar="MODEL", help="Name of a model of {libraries}; see `classlens models`."),
    ],
    checkpoint: Annotated[Path | None, typer.Option(help="File of weights: safetensors or a state dict.")] = None,
    num_classes: Annotated[int | None, typer.Option(help="Number of classes, for a model without a head.")] = None,
    head: Annotated[Path | None, typer.Option(help="File of a linear head for a backbone of timm.")] = None,
    classes: Annotated[Path | None, typer.Option(help="File of class names, or of OpenCLIP's prompts.")] = None,
    random: Annotated[bool, typer.Option("--random", help="Use random weights; nothing is fetched.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Check that classlens describes a model correctly: print its parts and the measured error of every law.

    The exit code is 0 if all laws hold, 1 if one does not hold, and 2 for an unsupported model.
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
