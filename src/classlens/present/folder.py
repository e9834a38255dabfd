"""A folder of results that is there whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from classlens.errors import ClasslensError


def check_replaceable(out: Path, *, marker: str) -> None:
    """Raise unless ``out`` can be made, is empty, or holds ``marker``, the sign of an earlier result of its kind."""
    try:
        is_folder = out.is_dir()
        is_file = out.exists() and not is_folder
        holds_others = is_folder and any(out.iterdir()) and not (out / marker).is_file()
    except OSError as error:
        raise _unwritable(out, error) from None
    if is_file:
        raise ClasslensError(f"output {str(out)!r} is a file: expected a folder; give another --out")
    if holds_others:
        raise ClasslensError(
            f"output folder {str(out)!r} holds other files and no {marker}: nothing was written; give an empty or new "
            "--out"
        )


@contextmanager
def replacing(out: Path, *, marker: str) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its place at the end of the body, or goes when the body raises.

    An earlier result stays as it was until the new one is complete.
    """
    check_replaceable(out, marker=marker)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise _unwritable(out, error) from None
    try:
        made = temporary / "result"
        made.mkdir()
        yield made
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
