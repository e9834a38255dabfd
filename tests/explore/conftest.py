"""A store of three photos with contributions, and the model that measured it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette

import classlens
from classlens.analysis.measured_store import MeasuredStore
from classlens.data.open_dataset import open_dataset
from classlens.explore.app import create_app
from classlens.explore.explorer import Explored, Explorer, open_stores
from classlens.explore.security import Access
from classlens.lens.lens import Lens
from tests.explore.asking import HOST

MARKUP = "<img src=x onerror=alert(1)>"
"""In names of photos and stores: a page where it became markup would show a dialog."""


def photo_bytes(seed: int = 0, size: tuple[int, int] = (56, 40), kind: str = "PNG") -> bytes:
    """A smooth picture as a file."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def small_lens() -> Lens:
    return classlens.load("builtin:cifar10")


@pytest.fixture(scope="session")
def measured_folder(tmp_path_factory: pytest.TempPathFactory, small_lens: Lens) -> Path:
    """A folder with photos in ``photos``, their store, and a file ``secret.html`` that no page shows."""
    folder = tmp_path_factory.mktemp("explored")
    (folder / "photos").mkdir()
    for seed, name in enumerate((f"{MARKUP}.png", "ship & sea.png", "猫 naïve.png")):
        (folder / "photos" / name).write_bytes(photo_bytes(seed))
    (folder / "secret.html").write_text("secret of the owner")
    classlens.measure(
        small_lens,
        f"folder:{folder / 'photos'}",
        folder / MARKUP,
        conditions=["clean"],
        attribution=True,
        units=4,
        workers=0,
    )
    return folder


@pytest.fixture(scope="session")
def explored(measured_folder: Path, small_lens: Lens) -> list[Explored]:
    dataset = open_dataset(f"folder:{measured_folder / 'photos'}")
    return open_stores([MeasuredStore(str(measured_folder / MARKUP))], small_lens, lambda _: dataset)


@pytest.fixture
def explorer(explored: list[Explored], small_lens: Lens) -> Iterator[Explorer]:
    """A server's state of its own for each test, over the same store and model."""
    explorer = Explorer(explored, small_lens, "0.0")
    yield explorer
    explorer.jobs.close()


@pytest.fixture
def app(explorer: Explorer) -> Starlette:
    return create_app(explorer, Access({HOST}))


@pytest.fixture
def empty_app(small_lens: Lens) -> Starlette:
    """Without a store, as after `classlens explore` alone."""
    return create_app(Explorer([], small_lens, "0.0"), Access({HOST}))
