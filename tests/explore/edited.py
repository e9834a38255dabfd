"""A server of one small model with a measured store of three photos, for tests of edits."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import numpy as np
import uvicorn
from PIL import Image

import classlens
from classlens.analysis.measured_store import MeasuredStore
from classlens.data.open_dataset import open_dataset
from classlens.explore.app import create_app
from classlens.explore.explorer import Explorer, open_stores
from classlens.explore.security import Access

MODEL = "builtin:cifar10"


def photo_bytes(path: Path, seed: int) -> bytes:
    """A smooth picture, written and read back."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(small).resize((56, 40), Image.Resampling.BICUBIC).save(path)
    return path.read_bytes()


def make_explorer(folder: Path, *, store: bool = True) -> Explorer:
    """An explorer of photos below a folder, with or without a store of them."""
    photos = folder / "photos"
    photos.mkdir()
    for seed in range(3):
        photo_bytes(photos / f"photo {seed}.png", seed)
    lens = classlens.load(MODEL)
    if not store:
        return Explorer([], lens, "0", model=MODEL)
    classlens.measure(MODEL, f"folder:{photos}", folder / "store", conditions=["clean"], workers=0)
    measured = [MeasuredStore(str(folder / "store"))]
    return Explorer(open_stores(measured, lens, lambda _: open_dataset(f"folder:{photos}")), lens, "0", model=MODEL)


@contextmanager
def serving(explorer: Explorer) -> Iterator[str]:
    """A server on this machine; its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(create_app(explorer, Access({host})), log_level="warning"))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://{host}/"
        finally:
            server.should_exit = True
            thread.join(20)
