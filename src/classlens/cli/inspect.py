"""`classlens inspect`: one or more images, into a report."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from classlens import __version__
from classlens.cli.app import app, check_images, loading, reporting, waiting
from classlens.errors import ClasslensError
from classlens.models.families import ADAPTERS

if TYPE_CHECKING:
    from PIL.Image import Image

    from classlens.lens.trace import Trace

_BATCH = 8


@app.command()
@reporting
def inspect(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="One or more image files.")],
    model: Annotated[
        str, typer.Option(help=f"Name of a model of {', '.join(ADAPTERS)}; see `classlens models`.")
    ] = "builtin:cifar10",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights for a model name: safetensors or state dict.")
    ] = None,
    head: Annotated[Path | None, typer.Option(help="File of a linear head for a backbone of timm.")] = None,
    classes: Annotated[Path | None, typer.Option(help="File of class names: one a line, or JSON.")] = None,
    templates: Annotated[
        Path | None, typer.Option(help="File of prompts for an OpenCLIP model: one a line, {} is the class.")
    ] = None,
    class_: Annotated[str, typer.Option("--class", help="Class of interest: a name or an index.")] = "predicted",
    transform: Annotated[str | None, typer.Option(help='"paper" for the transform of the paper.')] = None,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("classlens-report"),
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show how a model builds the class of a photo: a page to explore, figures and numbers."""
    from classlens.lens.lens import load
    from classlens.render.folder import INSPECTION, check_replaceable

    check_replaceable(out, INSPECTION)
    if transform not in (None, "paper"):
        raise ClasslensError(f'transform {transform!r} is not known: leave it out or give "paper"')
    check_images(images)
    steps = len(images) + 2
    with waiting("loading the model") as progress:
        lens = load(model, **loading(model, checkpoint, head, classes, templates, transform, device))
        target: int | str = class_ if class_ == "predicted" else lens.classes.index(class_)
        pictures: list[Image] = []
        progress("looking at images", 1, steps)

        def traces() -> Iterator[Trace]:
            for start in range(0, len(images), _BATCH):
                trace = lens.trace(images[start : start + _BATCH], batch_size=_BATCH)
                pictures.extend(trace.picture(number) for number in range(len(trace)))
                yield trace
                progress("looking at images", 1 + len(pictures), steps)

        from classlens.render.inspection import inspection

        record = inspection(lens, traces(), target, version=__version__)
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
    console.print(f"Report: {out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def _write(record: dict[str, Any], pictures: list[Image], out: Path) -> None:
    from classlens.render.figures.inspection import save_figures
    from classlens.render.folder import INSPECTION, replacing
    from classlens.render.html.report import write_report

    with replacing(out, INSPECTION) as folder:
        (folder / "inspect.json").write_text(json.dumps(record, allow_nan=False), encoding="utf-8")
        save_figures(record, pictures, folder)
        write_report(record, pictures, folder / "report.html")


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    keys = ("name", "target", "predictions", "blocks", "largest")
    return {"model": record["model"], "images": [{key: image[key] for key in keys} for image in record["images"]]}
