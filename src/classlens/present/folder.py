"""A folder of results that is there whole or not at all."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from classlens.errors import ClasslensError


class Contents(NamedTuple):
    """What a folder of results of one kind holds."""

    marker: str
    """The file by which such a folder is known."""
    names: str
    """A pattern of all names that a result may write, the marker's too."""


INSPECTION = Contents(
    "inspect.json", r"inspect\.json|report\.html|\d{2,}-(evolution|tokens|explanation|attribution)\.png"
)


def check_replaceable(out: Path, contents: Contents) -> None:
    """Raise unless ``out`` can be made, is empty, or holds an earlier result of its kind and nothing else."""
    try:
        is_folder = out.is_dir()
        is_file = out.exists() and not is_folder
        entries = sorted(out.iterdir()) if is_folder else []
        others = [entry.name for entry in entries if not _written(entry, contents)]
    except OSError as error:
        raise _unwritable(out, error) from None
    if is_file:
        raise ClasslensError(f"output {str(out)!r} is a file: expected a folder; give another --out")
    if entries and not (out / contents.marker).is_file():
        raise ClasslensError(
            f"output folder {str(out)!r} holds other files and no {contents.marker}: nothing was written; give an "
            "empty or new --out"
        )
    if others:
        raise ClasslensError(
            f"output folder {str(out)!r} holds {others[0]!r} beside an earlier result, and would be replaced whole: "
            "nothing was written; move that away or give another --out"
        )


def _written(entry: Path, contents: Contents) -> bool:
    return entry.is_file() and re.fullmatch(contents.names, entry.name) is not None


@contextmanager
def replacing(out: Path, contents: Contents) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its place at the end of the body, or goes when the body raises.

    An earlier result stays as it was until the new one is complete.
    """
    check_replaceable(out, contents)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise _unwritable(out, error) from None
    try:
        made = temporary / "result"
        made.mkdir()
        yield made
        check_replaceable(out, contents)  # the body may have taken minutes
        _exchange(made, out, temporary / "earlier")
    except OSError as error:
        raise _unwritable(out, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(made: Path, out: Path, earlier: Path) -> None:
    """Put ``made`` in the place of ``out``; what was there is back when that fails or is interrupted."""
    if out.exists():
        out.rename(earlier)
    try:
        made.rename(out)
    except BaseException:
        if earlier.exists():
            earlier.rename(out)
        raise


def _unwritable(out: Path, error: OSError) -> ClasslensError:
    return ClasslensError(
        f"output folder {str(out)!r} cannot be written ({error.strerror or error}): give another --out"
    )
