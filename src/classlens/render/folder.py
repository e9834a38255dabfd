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
    """A pattern of all paths that a result may write, the marker's too."""


ANALYSIS = Contents(
    "analysis.json", r"analysis\.json|summary\.md|tables/[a-z_]+\.(parquet|csv)|figures/[a-z_]+\.(png|svg)"
)
EXPLANATION = Contents("explain.json", r"explain\.json|\d{2,}-[a-z_]+(-[a-z]+=[\w.-]+)*\.(png|webp|gif)")
EVALUATION = Contents(
    "evaluation.json", r"evaluation\.json|scores\.csv|curves(_randomization)?\.(csv|png|svg)|summary\.md"
)
INSPECTION = Contents(
    "inspect.json", r"inspect\.json|report\.html|\d{2,}-(evolution|tokens|explanation|attribution)\.png"
)


def check_replaceable(out: Path, contents: Contents) -> None:
    """Raise unless ``out`` can be made, is empty, or holds an earlier result of its kind and nothing else."""
    try:
        is_folder = out.is_dir()
        is_file = out.exists() and not is_folder
        holds = is_folder and any(out.iterdir())
        is_result = holds and (out / contents.marker).is_file()
        others = (
            [name for path in sorted(out.rglob("*")) if (name := _foreign(path, out, contents))] if is_result else []
        )
    except OSError as error:
        raise _unwritable(out, error) from None
    if is_file:
        raise ClasslensError(f"output {str(out)!r} is a file: expected a folder; give another --out")
    if holds and not is_result:
        raise ClasslensError(
            f"output folder {str(out)!r} holds other files and no {contents.marker}: nothing was written; give an "
            "empty or new --out"
        )
    if others:
        raise ClasslensError(
            f"output folder {str(out)!r} holds {others[0]!r} beside an earlier result, and would be replaced whole: "
            "nothing was written; move that away or give another --out"
        )


def _foreign(entry: Path, out: Path, contents: Contents) -> str | None:
    """The path of what a result does not write: another file, or a folder that holds nothing."""
    name = entry.relative_to(out).as_posix()
    if entry.is_dir() and not entry.is_symlink():
        return None if any(entry.iterdir()) else name
    return None if entry.is_file() and re.fullmatch(contents.names, name) else name


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
