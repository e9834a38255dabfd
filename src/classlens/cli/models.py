"""`classlens models`: names, families and weights of the supported models."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from classlens.cli.app import app, reporting


@app.command()
@reporting
def models(
    family: Annotated[str | None, typer.Option(help="Only models of this family, such as DINOv2.")] = None,
    search: Annotated[str | None, typer.Option(help="Only models that match all of these words.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List supported models, and whether their weights are on this machine."""
    from classlens.models.adapter import list_models
    from classlens.render.terminal.models import filter_models, model_records, model_table

    entries = filter_models(list_models(), family, search)
    if as_json:
        json.dump({"models": model_records(entries)}, sys.stdout, indent=1)
        print()
        return
    terminal = Console(emoji=False)
    # A file or pipe has no width, and a search cannot find a name that is cut in two.
    console = terminal if terminal.is_terminal else Console(emoji=False, width=200)
    console.print(model_table(entries), highlight=False)
