"""What every command shares: the app, errors and exit codes, and options that mean the same everywhere."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console

from classlens import __version__
from classlens.errors import ClasslensError

app = typer.Typer(
    help="How a Vision Transformer image classifier builds its classes.", no_args_is_help=True, add_completion=False
)
_errors = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
_P = ParamSpec("_P")


def reporting(command: Callable[_P, None]) -> Callable[_P, None]:
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


def check_images(images: list[str]) -> None:
    """Raise for the first image that is not there, before a model is loaded."""
    missing = [image for image in images if not os.path.exists(image)]  # of a name too long, Path.exists raises
    if missing:
        raise ClasslensError(f"image {missing[0]!r} does not exist: give the path of an image file")


def listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def loading(
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
