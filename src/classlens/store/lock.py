"""One writer a store."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock, Timeout

from classlens.errors import ClasslensError, cause

# A writer elsewhere that has not been heard of for so long is taken for dead.
_PATIENCE = 600.0


@contextmanager
def only_writer(url: str, *, local: bool) -> Iterator[Callable[[], None]]:
    """Hold a store against other writers; yields a function to call now and then, which says that one still writes.

    A lock on a local disk ends with its process, however that ends. Object stores have no locks: there a writer leaves
    a note beside the store and renews it, and one that was not renewed for ten minutes does not count.
    """
    with _file(url) if local else _note(url) as renew:
        yield renew


@contextmanager
def _file(url: str) -> Iterator[Callable[[], None]]:
    path = Path(url)
    path = path.parent.resolve() / f".{path.name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0)
        lock.acquire()
    except Timeout:
        raise _taken(url, "another process") from None
    except OSError as error:
        raise ClasslensError(
            f"store {url!r} cannot be locked ({cause(error)}): give a folder where you may write"
        ) from None
    try:
        yield lambda: None
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        lock.release()


@contextmanager
def _note(url: str) -> Iterator[Callable[[], None]]:
    system, path = fsspec.core.url_to_fs(f"{url.rstrip('/')}.lock")
    own = f"{socket.gethostname()}, process {os.getpid()}"
    last = 0.0

    def renew() -> None:
        nonlocal last
        if time.time() - last > _PATIENCE / 10:
            last = time.time()
            system.pipe_file(path, json.dumps({"writer": own, "time": last}).encode())

    found = _noted(system, path)
    if time.time() - found[1] < _PATIENCE:
        raise _taken(url, found[0])
    renew()
    try:
        yield renew
    finally:
        if _noted(system, path)[0] == own:  # not that of one who took over from a writer silent for too long
            with suppress(OSError):
                system.rm_file(path)


def _noted(system: Any, path: str) -> tuple[str, float]:
    """Who wrote the note and when; nobody, long ago, where there is none or it is none of ours."""
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        found = json.loads(system.cat_file(path))
        return str(found["writer"]), float(found["time"])
    return "", 0.0


def _taken(url: str, writer: str) -> ClasslensError:
    return ClasslensError(
        f"store {url!r} is being written by {writer}: wait until it has finished, or give another --out"
    )
