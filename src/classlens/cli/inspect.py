"""`classlens inspect`: a report on one or more images."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from classlens import __version__
from classlens.cli.app import app, reporting
from classlens.cli.images import Classes, Images, SkipBad, image_files, skipped_lines, targets_of, traces_of
from classlens.cli.options import ModelOptions, expand_options
from classlens.errors import ClasslensError
from classlens.text import say

if TYPE_CHECKING:
    from PIL.Image import Image

    from classlens.lens.trace import Trace

_BATCH = 8


@app.command()
@reporting
@expand_options
def inspect(
    images: Images,
    weights: ModelOptions,
    model: Annotated[
        str, typer.Option(help="Name of a model of {libraries}; see `classlens models`.")
    ] = "builtin:photos",
    class_: Classes = None,
    against: Annotated[str | None, typer.Option(help="Another class: explain the class rather than this one.")] = None,
    skip_bad: SkipBad = False,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("classlens-report"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show how a model builds the class of a photo: an interactive page, figures and numbers."""
    from classlens.lens.load import load
    from classlens.render.folders.result_folder import INSPECTION, check_replaceable
    from classlens.render.terminal.progress import progress_bar

    check_replaceable(out, INSPECTION)
    files = image_files(images)
    skipped: dict[str, str] | None = {} if skip_bad else None
    load_options = weights.load_options(model)
    steps = len(files) + 2
    with progress_bar("loading the model") as progress:
        lens = load(model, **load_options)
        targets = targets_of(lens, class_)
        rival = None if against is None else lens.classes.index(against)
        if rival is not None and rival in targets:
            raise ClasslensError(f"--class and --against are both {lens.classes.names[rival]!r}: give another class")
        pictures: list[Image] = []
        progress("running the model", 1, steps)

        def traces() -> Iterator[Trace]:
            # The classes of one image follow each other.
            for _, trace in traces_of(lens, files, _BATCH if len(targets) == 1 else 1, skipped):
                for _ in targets:
                    pictures.extend(trace.picture(number) for number in range(len(trace)))
                yield trace
                progress("running the model", 1 + len(pictures) // len(targets), steps)

        from classlens.lens.inspection import Inspection
        from classlens.render.inspection_record import inspection

        record = inspection(lens, traces(), targets[0], rival, more=targets[1:], version=__version__)
        progress("writing the report", steps - 1, steps)
        Inspection(record, pictures).write(out)
    if as_json:
        left_out = {} if skipped is None else {"skipped": skipped}
        json.dump({"out": str(out), **_summary(record), **left_out}, sys.stdout, indent=1)
        print()
        return
    from classlens.render.terminal.inspection import tables

    console = Console(emoji=False)
    for table in tables(record):
        console.print(table)
    for line in skipped_lines(skipped):
        say(line)
    say(f"Report: {out / 'report.html'}")


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    from classlens.render.class_record import shown_record

    keys = ("name", "target", "against", "predictions", "blocks", "largest")
    images = [{key: shown_record(image)[key] for key in keys} for image in record["images"]]
    return {"model": record["model"], "images": images}
