"""Images and classes of a command: files and folders, unreadable files, several classes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from classlens.errors import ClasslensError

if TYPE_CHECKING:
    from classlens.lens.lens import Lens
    from classlens.lens.trace import Trace

Images = Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")]
Classes = Annotated[
    list[str] | None,
    typer.Option("--class", help="Class of interest: a name or an index; several show each image for each of them."),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Skip unreadable images, and say so.")]


def image_files(images: Sequence[str]) -> list[str]:
    """The files, with those of folders at any depth; raises for what is not there, before a model is loaded."""
    files: list[str] = []
    for image in images:
        if not os.path.exists(image):  # of a name too long, Path.exists raises
            raise ClasslensError(f"image {image!r} does not exist: give the path of an image file")
        if not os.path.isdir(image):
            files.append(image)
            continue
        from classlens.data.layouts.folder import image_paths

        inside = [os.path.join(image, path) for path in image_paths(Path(image))]
        if not inside:
            raise ClasslensError(f"folder {image!r} holds no images: give image files, or a folder of them")
        files += inside
    return files


def relative_paths(images: Sequence[str], files: Sequence[str]) -> list[str]:
    """Path of each file within the folder that was given, or the name of a file that was given itself."""
    folders = [os.path.join(image, "") for image in images if os.path.isdir(image)]
    within = [next((file[len(folder) :] for folder in folders if file.startswith(folder)), None) for file in files]
    return [Path(path or os.path.basename(file)).as_posix() for path, file in zip(within, files, strict=True)]


def targets_of(lens: Lens, classes: Sequence[str] | None) -> list[int | str]:
    """The classes of interest, each once."""
    targets = classes or ["predicted"]
    return list(dict.fromkeys("predicted" if name == "predicted" else lens.classes.index(name) for name in targets))


def traces_of(
    lens: Lens, images: Sequence[str], batch_size: int, skipped: dict[str, str] | None
) -> Iterator[tuple[Sequence[str], Trace]]:
    """Batches of images with their traces; unreadable images are left out where ``skipped`` takes their reasons."""
    found = False
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        try:
            traces = [(batch, lens.trace(batch, batch_size=batch_size))]
        except ClasslensError:
            if skipped is None:
                raise
            traces = list(_one_by_one(lens, batch, skipped))
        found = found or bool(traces)
        yield from traces
    if not found and skipped:
        raise ClasslensError(f"none of the {len(images)} images can be read; the first: {next(iter(skipped.values()))}")


def _one_by_one(lens: Lens, images: Sequence[str], skipped: dict[str, str]) -> Iterator[tuple[Sequence[str], Trace]]:
    for image in images:
        try:
            trace = lens.trace([image])
        except ClasslensError as error:
            skipped[image] = str(error)
        else:
            yield [image], trace


def skipped_lines(skipped: dict[str, str] | None) -> Iterator[str]:
    """A line for each image that was skipped."""
    yield from (f"Skipped {image}: {reason}" for image, reason in (skipped or {}).items())
