"""One writer per store."""

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

# Seconds after which a silent writer on another machine counts as dead.
_TIMEOUT = 600.0


@contextmanager
def only_writer(url: str, *, local: bool) -> Iterator[Callable[[], None]]:
    """Lock a store against other writers; yields a function that renews the lock and is called now and then.

    A lock on a local disk ends with its process. Object stores have no locks: a writer keeps a note beside the store,
    and a note that has not been renewed for ten minutes does not count.
    """
    with _file_lock(url) if local else _note_lock(url) as renew:
        yield renew


@contextmanager
def _file_lock(url: str) -> Iterator[Callable[[], None]]:
    path = Path(url)
    path = path.parent.resolve() / f".{path.name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0)
        lock.acquire()
    except Timeout:
        raise _locked(url, "another process") from None
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
def _note_lock(url: str) -> Iterator[Callable[[], None]]:
    system, path = fsspec.core.url_to_fs(f"{url.rstrip('/')}.lock")
    writer = f"{socket.gethostname()}, process {os.getpid()}"
    last = 0.0

    def renew() -> None:
        nonlocal last
        if time.time() - last > _TIMEOUT / 10:
            last = time.time()
            system.pipe_file(path, json.dumps({"writer": writer, "time": last}).encode())

    holder, renewed = _read_note(system, path)
    if time.time() - renewed < _TIMEOUT:
        raise _locked(url, holder)
    renew()
    try:
        yield renew
    finally:
        if _read_note(system, path)[0] == writer:  # another writer may have taken over after the timeout
            with suppress(OSError):
                system.rm_file(path)


def _read_note(system: Any, path: str) -> tuple[str, float]:
    """Writer and time of a note; an empty name and 0 without a valid note."""
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        note = json.loads(system.cat_file(path))
        return str(note["writer"]), float(note["time"])
    return "", 0.0


def _locked(url: str, writer: str) -> ClasslensError:
    return ClasslensError(
        f"store {url!r} is being written by {writer}: wait until it has finished, or give another --out"
    )
