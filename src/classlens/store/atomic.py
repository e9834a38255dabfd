"""A file that is there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

_PARTIAL = ".partial"


def clear_leftovers(folder: Path, names: str = ".*") -> None:
    """Remove what a killed writer had half-written; for the one writer alone. ``names`` is a pattern."""
    for path in folder.glob(f"{names}{_PARTIAL}"):
        path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that takes its place at the end of the body, or goes when the body raises.

    with writing(Path("lens.safetensors")) as made:
        made.write_bytes(...)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=_PARTIAL, delete=False) as temporary:
        made = Path(temporary.name)
    try:
        yield made
        os.chmod(made, 0o644)  # temporary files are private
        os.replace(made, path)
    finally:
        made.unlink(missing_ok=True)
