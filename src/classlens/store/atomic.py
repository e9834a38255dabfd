"""Files that are written completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

_PARTIAL = ".partial"


def clear_leftovers(folder: Path, names: str = ".*") -> None:
    """Remove half-written files of a killed writer; only while the lock is held. ``names`` is a glob pattern."""
    for path in folder.glob(f"{names}{_PARTIAL}"):
        path.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed to it at the end of the body and removed when the body raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=_PARTIAL, delete=False) as file:
        temporary = Path(file.name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)  # temporary files are private
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
