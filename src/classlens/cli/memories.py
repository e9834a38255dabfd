"""`classlens memories`: value vectors as text."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from classlens.cli.app import app, reporting
from classlens.cli.options import WeightOptions, expand_options
from classlens.errors import ClasslensError


@app.command()
@reporting
@expand_options
def memories(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model name, as for inspect.")],
    weights: WeightOptions,
    block: Annotated[int, typer.Option(help="Block, from 0; -1 is the last.")] = -1,
    sublayer: Annotated[str, typer.Option(help="attn (channels of the joined heads) or mlp (hidden units).")] = "mlp",
    unit: Annotated[int | None, typer.Option(help="Show the classes of this memory, by its number.")] = None,
    class_: Annotated[str | None, typer.Option("--class", help="Show the memories of this class.")] = None,
    top: Annotated[int, typer.Option(help="Number of classes or memories to show.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show value vectors as text: the classes that a memory writes, or the memories that write a class.

    Without --unit and --class, show the memories that are closest to a class.
    """
    from classlens.lens.load import load
    from classlens.lens.memories import class_memories, memory_classes
    from classlens.render.terminal.memories import memory_record, memory_table

    if unit is not None and class_ is not None:
        raise ClasslensError("--unit and --class were both given: give one of them")
    lens = load(model, **weights.load_options(model))
    blocks = len(lens.view.blocks)
    number = block + blocks if -blocks <= block < 0 else block
    if unit is not None:
        result = memory_classes(lens, sublayer, number, unit, k=top)  # type: ignore[arg-type]
    else:
        category = None if class_ is None else lens.classes.index(class_)
        result = class_memories(lens, sublayer, number, category, k=top)  # type: ignore[arg-type]
    if as_json:
        json.dump(memory_record(result), sys.stdout, indent=1, allow_nan=False)
        print()
        return
    Console(emoji=False).print(memory_table(result), highlight=False)
