"""Result folders, which exist complete or not at all."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from classlens.errors import ClasslensError


class FolderKind(NamedTuple):
    """The files that a result folder of one kind may hold."""

    marker: str
    """The file by which such a folder is recognized."""
    files: str
    """A pattern that matches the path of every file of a result, the marker too."""


ANALYSIS = FolderKind(
    "analysis.json", r"analysis\.json|summary\.md|tables/[a-z_]+\.(parquet|csv)|figures/[a-z_]+\.(png|svg)"
)
EXPLANATION = FolderKind("explain.json", r"explain\.json|\d{2,}-[a-z_]+(-[a-z]+=[\w.-]+)*\.(png|webp|gif)")
EVALUATION = FolderKind(
    "evaluation.json", r"evaluation\.json|scores\.csv|curves\.csv|curves(_[a-z_]+)?\.(png|svg)|summary\.md"
)
ABLATION = FolderKind(
    "ablation.json",
    r"ablation\.json|(effects|agreement|held_out|pairs|pair_tests)\.csv|(effects|agreement|held_out)\.(png|svg)|summary\.md",
)
RELIABILITY = FolderKind(
    "reliability.json",
    r"reliability\.json|(scores|curves|images)\.csv|risk_coverage\.(png|svg)|summary\.md|report\.html",
)
INSPECTION = FolderKind(
    "inspect.json", r"inspect\.json|report\.html|\d{2,}-(evolution|tokens|explanation|attribution)\.png"
)
SWEEP = FolderKind("sweep.json", r"sweep\.json|sweep\.csv|report\.html|\d{2,}-(effects|tokens)\.png")
COMPARISON = FolderKind(
    "compare.json",
    r"compare\.(json|html)|(summary|classes|images|flips|heads|head_classes|trajectory)\.csv",
)
ATLAS = FolderKind(
    "atlas.json",
    r"atlas\.json|index\.html|(classes|blocks)/\d+\.html|(heads|units)/\d+\.\d+\.html|tables/[a-z_]+\.parquet",
)


def check_replaceable(out: Path, kind: FolderKind) -> None:
    """Raise unless ``out`` can be created, is empty, or holds an earlier result of this kind and nothing else."""
    try:
        is_folder = out.is_dir()
        is_file = out.exists() and not is_folder
        is_filled = is_folder and any(out.iterdir())
        is_result = is_filled and (out / kind.marker).is_file()
        foreign = [name for path in sorted(out.rglob("*")) if (name := _foreign(path, out, kind))] if is_result else []
    except OSError as error:
        raise _unwritable(out, error) from None
    if is_file:
        raise ClasslensError(f"output {str(out)!r} is a file: expected a folder; give another --out")
    if is_filled and not is_result:
        raise ClasslensError(
            f"output folder {str(out)!r} holds other files and no {kind.marker}: nothing was written; give an "
            "empty or new --out"
        )
    if foreign:
        raise ClasslensError(
            f"output folder {str(out)!r} holds {foreign[0]!r} beside an earlier result, and would be replaced whole: "
            "nothing was written; move that away or give another --out"
        )


def _foreign(entry: Path, out: Path, kind: FolderKind) -> str | None:
    """The path of an entry that no result of this kind has: another file, or an empty folder."""
    name = entry.relative_to(out).as_posix()
    if entry.is_dir() and not entry.is_symlink():
        return None if any(entry.iterdir()) else name
    return None if entry.is_file() and re.fullmatch(kind.files, name) else name


@contextmanager
def replacing(out: Path, kind: FolderKind) -> Iterator[Path]:
    """A temporary folder beside ``out`` that replaces it after the body, or is deleted when the body raises.

    An earlier result stays unchanged until the new one is complete.
    """
    check_replaceable(out, kind)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise _unwritable(out, error) from None
    try:
        result = temporary / "result"
        result.mkdir()
        yield result
        check_replaceable(out, kind)  # files may have been added during the body, which can take minutes
        _exchange(result, out, temporary / "earlier")
    except OSError as error:
        raise _unwritable(out, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(result: Path, out: Path, earlier: Path) -> None:
    """Move ``result`` to ``out``; on failure or interruption the earlier folder is moved back."""
    if out.exists():
        out.rename(earlier)
    try:
        result.rename(out)
    except BaseException:
        if earlier.exists():
            earlier.rename(out)
        raise


def _unwritable(out: Path, error: OSError) -> ClasslensError:
    return ClasslensError(
        f"output folder {str(out)!r} cannot be written ({error.strerror or error}): give another --out"
    )
