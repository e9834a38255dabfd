"""`classlens memories`: value vectors as text."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from classlens.cli.app import app, loading, reporting
from classlens.errors import ClasslensError


@app.command()
@reporting
def memories(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model name, as for inspect.")],
    block: Annotated[int, typer.Option(help="Counted from 0; -1 is the last.")] = -1,
    sublayer: Annotated[str, typer.Option(help="attn (channels of the joined heads) or mlp (hidden units).")] = "mlp",
    memory: Annotated[int | None, typer.Option(help="Show the classes of this memory.")] = None,
    class_: Annotated[str | None, typer.Option("--class", help="Show the memories of this class.")] = None,
    top: Annotated[int, typer.Option(help="How many to show.")] = 10,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights: safetensors or state dict.")] = None,
    head: Annotated[Path | None, typer.Option(help="File of a linear head for a backbone of timm.")] = None,
    classes: Annotated[Path | None, typer.Option(help="File of class names: one a line, or JSON.")] = None,
    templates: Annotated[Path | None, typer.Option(help="File of prompts for an OpenCLIP model.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Value vectors as text: which classes a memory writes, or which memories write a class.

    Without --memory and --class, the memories that come closest to a class.
    """
    from classlens.lens.lens import load
    from classlens.lens.memories import class_memories, memory_classes
    from classlens.render.terminal.memories import memory_record, memory_table

    if memory is not None and class_ is not None:
        raise ClasslensError("--memory and --class were both given: give one of them")
    lens = load(model, **loading(model, checkpoint, head, classes, templates, None, device))
    place = block + len(lens.view.blocks) if block < 0 else block
    if memory is not None:
        found = memory_classes(lens, sublayer, place, memory, k=top)  # type: ignore[arg-type]
    else:
        category = None if class_ is None else lens.classes.index(class_)
        found = class_memories(lens, sublayer, place, category, k=top)  # type: ignore[arg-type]
    if as_json:
        json.dump(memory_record(found), sys.stdout, indent=1, allow_nan=False)
        print()
        return
    Console(emoji=False).print(memory_table(found), highlight=False)
