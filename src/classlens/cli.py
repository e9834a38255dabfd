"""The command line: parse, call, print."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from classlens import __version__
from classlens.errors import ClasslensError

if TYPE_CHECKING:
    from PIL.Image import Image

    from classlens.lens.trace import Trace

app = typer.Typer(
    help="How a Vision Transformer image classifier builds its classes.", no_args_is_help=True, add_completion=False
)
_errors = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
_BATCH = 8
_P = ParamSpec("_P")


def _reporting(command: Callable[_P, None]) -> Callable[_P, None]:
    """One line and exit code 2 for an input that cannot be used; 130 for an interrupt."""

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except ClasslensError as error:
            _errors.print(f"Error: {error}", markup=False, style="red")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            _errors.print("Interrupted; nothing half-written is left.")
            raise typer.Exit(130) from None

    return run


def _version(wanted: bool) -> None:
    if wanted:
        print(f"classlens {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """How a Vision Transformer image classifier builds its classes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a file name or a rule of a table that it cannot show is no failure


@app.command()
@_reporting
def inspect(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="One or more image files.")],
    model: Annotated[
        str, typer.Option(help="builtin:cifar10, or a name of timm, torchvision, transformers or OpenCLIP.")
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
    from classlens.present.folder import INSPECTION, check_replaceable

    check_replaceable(out, INSPECTION)
    if transform not in (None, "paper"):
        raise ClasslensError(f'transform {transform!r} is not known: leave it out or give "paper"')
    missing = [image for image in images if not os.path.exists(image)]  # of a name too long, Path.exists raises
    if missing:
        raise ClasslensError(f"image {missing[0]!r} does not exist: give the path of an image file")
    terminal = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=terminal,
        transient=True,
        disable=not terminal.is_terminal,  # else it ends with an empty line
    )
    with progress:
        task = progress.add_task("loading the model", total=len(images) + 2)
        lens = load(model, **_loading(model, checkpoint, head, classes, templates, transform, device))
        target: int | str = class_ if class_ == "predicted" else lens.classes.index(class_)
        pictures: list[Image] = []
        progress.update(task, advance=1, description="looking at images")

        def traces() -> Iterator[Trace]:
            for start in range(0, len(images), _BATCH):
                trace = lens.trace(images[start : start + _BATCH], batch_size=_BATCH)
                pictures.extend(trace.picture(number) for number in range(len(trace)))
                yield trace
                progress.update(task, advance=len(trace))

        from classlens.present.tables import inspection

        record = inspection(lens, traces(), target, version=__version__)
        progress.update(task, description="writing the report")
        _write(record, pictures, out)
    if as_json:
        json.dump({"out": str(out), **_summary(record)}, sys.stdout, indent=1)
        print()
        return
    from classlens.present.terminal import tables

    console = Console(emoji=False)
    for table in tables(record):
        console.print(table)
    console.print(f"Report: {out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


@app.command()
@_reporting
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
    from classlens.models.random import redraw_heads
    from classlens.present.verification import verification, verification_tables

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
@_reporting
def models(
    family: Annotated[str | None, typer.Option(help="Only this family, such as DINOv2.")] = None,
    search: Annotated[str | None, typer.Option(help="Only models in which all these words occur.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the models that can be read, and whether their weights are on this machine."""
    from classlens.models.families import known
    from classlens.present.listing import chosen, listing, records

    found = chosen(known(), family, search)
    if as_json:
        json.dump({"models": records(found)}, sys.stdout, indent=1)
        print()
        return
    terminal = Console(emoji=False)
    # In a file or a pipe there is no width to keep to, and a name that is cut in two cannot be searched for.
    console = terminal if terminal.is_terminal else Console(emoji=False, width=200)
    console.print(listing(found), highlight=False)


@app.command()
@_reporting
def measure(
    model: Annotated[str, typer.Option(help="A model name, as for inspect.")],
    data: Annotated[
        str,
        typer.Option(help="folder:ROOT, list:FILE, imagenet-s:ROOT, cifar10:ROOT, cifar100:ROOT or hf:NAME."),
    ],
    out: Annotated[str, typer.Option(help="The store: a path ending in .zarr, or a URL of fsspec.")],
    conditions: Annotated[
        str,
        typer.Option(help="With commas: clean, random_init, self_only, no_cls, context_removed, class_removed."),
    ] = "clean",
    sites: Annotated[
        str | None, typer.Option(help="With commas: embed, attn_out, resid_mid, mlp_out, resid_post; all if left out.")
    ] = None,
    memories: Annotated[bool, typer.Option("--memories", help="Also key/value memories.")] = False,
    split: Annotated[str | None, typer.Option(help="Of the data, such as validation.")] = None,
    per_class: Annotated[int | None, typer.Option(help="Images of each class; the first in order of names.")] = None,
    limit: Annotated[int | None, typer.Option(help="Images at most.")] = None,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Draw --per-class and --limit with --seed.")] = False,
    seed: Annotated[int, typer.Option(help="Of the random twin, of the control class and of drawn subsets.")] = 0,
    batch_size: Annotated[str, typer.Option(help="auto, 1 to 64, or a multiple of 64.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode images.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Record and leave out unreadable images.")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights: safetensors or state dict.")] = None,
    head: Annotated[Path | None, typer.Option(help="File of a linear head for a backbone of timm.")] = None,
    classes: Annotated[Path | None, typer.Option(help="File of class names: one a line, or JSON.")] = None,
    templates: Annotated[Path | None, typer.Option(help="File of prompts for an OpenCLIP model.")] = None,
    transform: Annotated[str | None, typer.Option(help='"paper" for the transform of the paper.')] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or float64.")] = None,
    engine: Annotated[str, typer.Option(help="local or ray.")] = "local",
    address: Annotated[str | None, typer.Option(help="Ray cluster: auto or ray://HOST:10001.")] = None,
    actors: Annotated[int | None, typer.Option(min=1, help="Copies of the model on the cluster.")] = None,
    gpus: Annotated[float | None, typer.Option(min=0, help="GPUs of each copy, such as 0.5.")] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Progress and outcome as JSON lines.")] = False,
) -> None:
    """Measure every token of a data set in class space, into a store; run again to go on after a stop."""
    from classlens.present.progress import watched
    from classlens.runs.cluster import Cluster
    from classlens.runs.measure import measure as run

    with watched(sys.stdout if log_json else None, out) as (report, finished):
        outcome = run(
            model,
            data,
            out,
            conditions=_listed(conditions),
            sites=None if sites is None else _listed(sites),
            memories=memories,
            split=split,
            per_class=per_class,
            limit=limit,
            shuffle=shuffle,
            seed=seed,
            batch_size=int(batch_size) if batch_size.isdecimal() else batch_size,  # type: ignore[arg-type]
            workers=workers,
            skip_bad=skip_bad,
            engine=engine,  # type: ignore[arg-type]
            cluster=Cluster(address, actors, gpus),
            report=report,
            **_loading(model, checkpoint, head, classes, templates, transform, device),
            dtype=dtype,
        )
        finished(outcome)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _loading(
    model: str,
    checkpoint: Path | None,
    head: Path | None,
    classes: Path | None,
    templates: Path | None,
    transform: str | None,
    device: str | None,
) -> dict[str, Any]:
    """What `classlens.load` is to be called with besides the model."""
    from classlens.models.classes import read_class_names

    if templates is not None and not model.startswith("open_clip:"):
        raise ClasslensError(f"--templates goes with an OpenCLIP model, not with {model!r}: leave it out")
    options: dict[str, Any] = {} if templates is None else {"templates": templates}
    names = None if classes is None else read_class_names(classes)
    if transform not in (None, "paper"):
        raise ClasslensError(f'transform {transform!r} is not known: leave it out or give "paper"')
    given = {"checkpoint": checkpoint, "head": head, "class_names": names, "transform": transform, "device": device}
    return given | options


def _write(record: dict[str, Any], pictures: list[Image], out: Path) -> None:
    from classlens.present.figures import save_figures
    from classlens.present.folder import INSPECTION, replacing
    from classlens.present.report import write_report

    with replacing(out, INSPECTION) as folder:
        (folder / "inspect.json").write_text(json.dumps(record, allow_nan=False), encoding="utf-8")
        save_figures(record, pictures, folder)
        write_report(record, pictures, folder / "report.html")


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    keys = ("name", "target", "predictions", "blocks", "largest")
    return {"model": record["model"], "images": [{key: image[key] for key in keys} for image in record["images"]]}
