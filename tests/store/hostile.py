"""Stores of others: a store with one change that an attacker, another program or a fault could make."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np

DEEP = "[" * 100_000 + "]" * 100_000
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 3, 10**9, 10**12, 2**70, -(2**70), 1.5, 1e308, "", "x", "NaN", "\x1b[2J<script>"),
    *([], {}, [[]], [3], [10**9], [-1], ["x", None], {"x": 1}, {"name": "x", "configuration": {}}),
    *("float16", "complex64", "bool", "uint64", "int8", "string", "r16", {"name": "numpy.datetime64"}),
)
CODECS: tuple[Any, ...] = (
    {"name": "gzip", "configuration": {"level": 1}},
    {"name": "blosc", "configuration": {"typesize": 1, "cname": "lz4", "clevel": 1, "shuffle": "noshuffle"}},
    {"name": "numcodecs.pickle", "configuration": {}},
    {"name": "transpose", "configuration": {"order": [0]}},
    {"name": "x"},
)


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Ends a hang with TimeoutError."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"not done in {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def bomb(size: int) -> bytes:
    """A few bytes of zstd that stand for so many zeros, with the checksum that a store has."""
    return bytes(numcodecs.Zstd(level=0, checksum=True).encode(np.zeros(size, dtype=np.uint8)))


def declared(size: int) -> bytes:
    """The head of a frame that declares so many bytes."""
    return b"\x28\xb5\x2f\xfd" + bytes([0b11000100, 0x40]) + size.to_bytes(8, "little") + b"\x01\x00\x00\0\0\0\0"


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def version_2_group(folder: Path, ran: Path) -> None:
    """A group of Zarr version 2 with an array of pickled objects, in the place of one of version 3."""
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zattrs").write_text('{"coordinates": "x"}')
    array = folder / "image"
    array.mkdir()
    metadata = {
        **{"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "compressor": None, "fill_value": None},
        **{"order": "C", "filters": [{"id": "pickle", "protocol": 5}]},
    }
    (array / ".zarray").write_text(json.dumps(metadata))
    (array / ".zattrs").write_text('{"_ARRAY_DIMENSIONS": ["image"]}')
    (array / "0").write_bytes(pickle.dumps(Payload(ran)))


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON file in place."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def mutate(store: Path, moments: random.Random) -> str:
    """One random change of a store; returns what was done."""
    files = sorted(path for path in store.rglob("*") if path.is_file())
    metadata = [path for path in files if path.name == "zarr.json"]
    chunks = [path for path in files if path.name != "zarr.json"]
    kind = moments.choice(("value", "value", "value", "attribute", "codec", "text", "chunk", "chunk", "file", "folder"))
    path = moments.choice(chunks if kind == "chunk" else files if kind == "file" else metadata)
    shown = path.relative_to(store).as_posix()
    if kind == "value":
        document = json.loads(path.read_text())
        done = _change_value(document, moments)
        path.write_text(json.dumps(document))
    elif kind == "attribute":
        path, shown = store / "zarr.json", "zarr.json"
        document = json.loads(path.read_text())
        done = _change_value(document["attributes"]["classlens"], moments)
        path.write_text(json.dumps(document))
    elif kind == "codec":
        done, codec = "another codec", moments.choice(CODECS)
        place = moments.choice(("append", "insert", "replace"))

        def change(document: Any) -> None:
            codecs = document.setdefault("codecs", [])
            codecs[:] = [codec] if place == "replace" else [*codecs, codec] if place == "append" else [codec, *codecs]

        edit(path, change)
    elif kind == "text":
        text = path.read_text()
        done, data = moments.choice(
            [
                ("cut", text[: moments.randrange(len(text))].encode()),
                ("deep", DEEP.encode()),
                ("deep within", text.replace("3", DEEP, 1).encode()),
                ("empty", b""),
                ("no text", bytes(range(256))),
                ("spaces", b" " * 2**20 + text.encode()),
            ]
        )
        path.write_bytes(data)
    elif kind == "chunk":
        data = path.read_bytes()
        done, data = moments.choice(
            [
                ("cut", data[: moments.randrange(len(data))]),
                ("random bytes", moments.randbytes(moments.randrange(1, 200))),
                ("flipped", _flipped(data, moments)),
                ("longer", data + bytes(40)),
                ("bomb", bomb(2**28)),
                ("declared", declared(2**50)),
                ("another chunk", moments.choice(chunks).read_bytes()),
            ]
        )
        path.write_bytes(data)
    else:
        target = path.parent if kind == "folder" and path.parent != store else path
        done = change_kind(target, moments)
        shown = target.relative_to(store).as_posix()
    return f"{kind} of {shown}: {done}"


def _change_value(document: Any, moments: random.Random) -> str:
    """Change one value anywhere in a document."""
    places = list(_places(document))
    parent, key = moments.choice(places)
    if isinstance(parent, dict) and moments.random() < 0.2:
        del parent[key]
        return f"without {key!r}"
    if isinstance(parent, dict) and moments.random() < 0.1:
        parent[f"{key}2"] = parent[key]
        return f"{key!r} twice"
    parent[key] = moments.choice(VALUES)
    return f"{key!r} is {parent[key]!r}"


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(document) if isinstance(document, dict) else range(len(document))
    for key in keys:
        yield document, key
        if isinstance(document[key], dict | list):
            yield from _places(document[key])


def _flipped(data: bytes, moments: random.Random) -> bytes:
    changed = bytearray(data)
    changed[moments.randrange(len(data))] ^= 1 << moments.randrange(8)
    return bytes(changed)


def change_kind(path: Path, moments: random.Random) -> str:
    """Another kind of file, or none, in the place of a file or a folder."""
    done = moments.choice(("pipe", "link to zeros", "link out", "folder", "gone", "large and empty"))
    outside = path.with_name("outside")
    if done == "link out":
        path.rename(outside)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if done == "pipe":
        os.mkfifo(path)
    elif done == "link to zeros":
        path.symlink_to("/dev/zero")
    elif done == "link out":
        path.symlink_to(outside)
    elif done == "folder":
        path.mkdir()
    elif done == "large and empty":
        with path.open("wb") as file:
            file.truncate(2**40)
    return done
