"""`classlens inspect`: a report on one or more images."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from classlens.cli.app import app, reporting
from classlens.cli.images import Classes, Images, SkipBad, image_files, skipped_lines, targets_of, traces_of
from classlens.cli.options import ModelOptions, expand_options
from classlens.errors import ClasslensError
from classlens.text import say

if TYPE_CHECKING:
    from PIL.Image import Image

    from classlens.lens.lens import Lens
    from classlens.lens.trace import Trace
    from classlens.render.edit_record.plan import PlannedEdit

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
    edits: Annotated[
        list[str] | None,
        typer.Option(
            "--edit",
            help="Edit of the pass, as AblateHeads:heads=0,3:blocks=5; several act together. Edits: {edits}.",
        ),
    ] = None,
    edit_means: Annotated[Path | None, typer.Option(help="File of `classlens means`, for edits with to=means.")] = None,
    edit_source: Annotated[str | None, typer.Option(help="Photo that the edit Patch takes activations from.")] = None,
    skip_bad: SkipBad = False,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("classlens-report"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show how a model builds the class of a photo: an interactive page, figures and numbers."""
    from classlens import __version__
    from classlens.lens.load import load
    from classlens.render.folders.result_folder import INSPECTION, check_replaceable
    from classlens.render.terminal.progress import progress_bar

    check_replaceable(out, INSPECTION)
    planned = _planned(edits or (), edit_means, edit_source)
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

        with _editing(lens, planned, edit_means, edit_source):
            names = [edit.text for edit in planned]
            record = inspection(lens, traces(), targets[0], rival, more=targets[1:], edits=names, version=__version__)
        progress("writing the report", steps - 1, steps)
        Inspection(record, pictures).write(out)
    if as_json:
        left_out = {} if skipped is None else {"skipped": skipped}
        json.dump({"out": str(out), **_summary(record), **left_out}, sys.stdout, indent=1)
        print()
        return
    from classlens.render.terminal.inspection import tables

    console = Console(emoji=False)
    if planned:
        say(f"The model runs with edits: {'; '.join(record['edits'])}")
    for table in tables(record):
        console.print(table)
    for line in skipped_lines(skipped):
        say(line)
    say(f"Report: {out / 'report.html'}")


def _planned(edits: Sequence[str], means: Path | None, source: str | None) -> list[PlannedEdit]:
    """The edits that were given; raises ClasslensError where the photo or means that they take are missing."""
    if not edits and means is None and source is None:
        return []
    from classlens.render.edit_record.notation import edit_of_text
    from classlens.render.edit_record.plan import planned_edit

    planned = [planned_edit(edit_of_text(text)) for text in edits]
    for given, option, needs, words in (
        (source, "--edit-source", any(edit.takes("source") for edit in planned), "the edit Patch"),
        (means, "--edit-means", any(edit.takes("replacement", "means") for edit in planned), "an edit with to=means"),
    ):
        if (given is not None) != needs:
            raise ClasslensError(f"{option} goes with {words}, which needs it: give both or neither")
    if source is not None and len(image_files([source])) != 1:
        raise ClasslensError(f"--edit-source {source!r} is a folder of several images: give one photo")
    return planned


def _editing(
    lens: Lens, planned: Sequence[PlannedEdit], means: Path | None, source: str | None
) -> AbstractContextManager[None]:
    """The context in which the model runs with the edits."""
    if not planned:
        return nullcontext()
    from classlens.lens.images import prepare_images
    from classlens.lens.means_file import load_means
    from classlens.render.edit_record.build import build_edits

    view = lens.view
    pixels = None if source is None else prepare_images(image_files([source]), view, lens.preprocessing)[1]
    tokens = view.tokens(view.input_size)
    given = None if means is None else load_means(means)
    return lens.edit(*build_edits(planned, view, tokens, source=pixels, means=given))


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    from classlens.render.class_record import shown_record

    keys = ("name", "target", "against", "predictions", "blocks", "largest")
    images = [{key: shown_record(image)[key] for key in keys} for image in record["images"]]
    edits = {"edits": record["edits"]} if record["edits"] else {}
    return {"model": record["model"], **edits, "images": images}
