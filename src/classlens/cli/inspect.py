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
from classlens.cli.app import app, check_images, reporting
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
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Image files.")],
    weights: ModelOptions,
    model: Annotated[
        str, typer.Option(help="Name of a model of {libraries}; see `classlens models`.")
    ] = "builtin:cifar10",
    class_: Annotated[str, typer.Option("--class", help="Class of interest: a name or an index.")] = "predicted",
    against: Annotated[str | None, typer.Option(help="Another class: explain the class rather than this one.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("classlens-report"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show how a model builds the class of a photo: an interactive page, figures and numbers."""
    from classlens.lens.load import load
    from classlens.render.folders.result_folder import INSPECTION, check_replaceable
    from classlens.render.terminal.progress import progress_bar

    check_replaceable(out, INSPECTION)
    check_images(images)
    load_options = weights.load_options(model)
    steps = len(images) + 2
    with progress_bar("loading the model") as progress:
        lens = load(model, **load_options)
        target: int | str = class_ if class_ == "predicted" else lens.classes.index(class_)
        rival = None if against is None else lens.classes.index(against)
        if rival is not None and rival == target:
            raise ClasslensError(f"--class and --against are both {lens.classes.names[rival]!r}: give another class")
        pictures: list[Image] = []
        progress("running the model", 1, steps)

        def traces() -> Iterator[Trace]:
            for start in range(0, len(images), _BATCH):
                trace = lens.trace(images[start : start + _BATCH], batch_size=_BATCH)
                pictures.extend(trace.picture(number) for number in range(len(trace)))
                yield trace
                progress("running the model", 1 + len(pictures), steps)

        from classlens.render.inspection_record import inspection

        record = inspection(lens, traces(), target, rival, version=__version__)
        progress("writing the report", steps - 1, steps)
        _write(record, pictures, out)
    if as_json:
        json.dump({"out": str(out), **_summary(record)}, sys.stdout, indent=1)
        print()
        return
    from classlens.render.terminal.inspection import tables

    console = Console(emoji=False)
    for table in tables(record):
        console.print(table)
    say(f"Report: {out / 'report.html'}")


def _write(record: dict[str, Any], pictures: list[Image], out: Path) -> None:
    from classlens.render.figures.inspection import save_figures
    from classlens.render.folders.result_folder import INSPECTION, replacing
    from classlens.render.html.report import write_report

    with replacing(out, INSPECTION) as folder:
        (folder / "inspect.json").write_text(json.dumps(record, allow_nan=False), encoding="utf-8")
        save_figures(record, pictures, folder)
        write_report(record, pictures, folder / "report.html")


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    from classlens.render.class_record import shown_record

    keys = ("name", "target", "against", "predictions", "blocks", "largest")
    images = [{key: shown_record(image)[key] for key in keys} for image in record["images"]]
    return {"model": record["model"], "images": images}
