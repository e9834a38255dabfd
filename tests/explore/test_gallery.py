"""The gallery and its thumbnails on a server, and as a static site."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("starlette")
from PIL import ExifTags, Image
from starlette.testclient import TestClient

from classlens.analysis.measured_store import MeasuredStore
from classlens.data.dataset import Dataset, ImageFiles
from classlens.explore.app import create_app
from classlens.explore.byte_cache import ByteCache
from classlens.explore.explorer import Explored, Explorer
from classlens.explore.page import Choice
from classlens.explore.pages import gallery, thumbs
from classlens.explore.security import Access
from tests.analysis.atlas.stores import AtlasSpec, write_atlas_store
from tests.analysis.stores import StoreSpec, write_store
from tests.render.browser import chromium, quiet

if TYPE_CHECKING:
    from playwright.sync_api import Browser

IMAGES = 14
TURNED, GONE, PENDING = 4, 6, 9
MEASURED = [0 if image == PENDING else 1 for image in range(IMAGES)]


def _photos(folder: Path) -> Dataset:
    """Photos of 120 × 80 pixels, red on the left; one is stored lying, and one is gone."""
    folder.mkdir()
    pixels = np.zeros((80, 120, 3), dtype=np.uint8)
    pixels[:, :60, 0] = 255
    names = tuple(f"{number:04}.png" for number in range(IMAGES))
    for number, name in enumerate(names):
        if number == TURNED:
            lying = Image.fromarray(pixels).rotate(90, expand=True)
            exif = Image.Exif()
            exif[ExifTags.Base.Orientation] = 6  # to be turned by 90° clockwise
            lying.save(folder / name, format="JPEG", exif=exif, quality=95)
        elif number != GONE:
            Image.fromarray(pixels).save(folder / name)
    return Dataset.whole("folder:photos", None, names, [-1] * IMAGES, (), ImageFiles(folder, names))


@pytest.fixture(scope="module")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explorer]:
    """A plain store, and one with contributions, whose input is a part of each photo."""
    folder = tmp_path_factory.mktemp("explore")
    dataset = _photos(folder / "photos")
    plain = StoreSpec(images=IMAGES, conditions=("clean",), measured={"clean": MEASURED})
    write_store(folder / "a.zarr", plain)
    write_atlas_store(folder / "b.zarr", AtlasSpec(clean=StoreSpec(images=IMAGES, conditions=("clean",))))
    stores = [
        Explored(number, MeasuredStore(folder / name), dataset, None)
        for number, name in enumerate(("a.zarr", "b.zarr"))
    ]
    explorer = Explorer(stores, None, "1")
    yield explorer
    explorer.jobs.close()


@pytest.fixture
def client(explorer: Explorer) -> TestClient:
    return TestClient(create_app(explorer, Access(None)), base_url="http://127.0.0.1")


def record_in(text: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(re.search(r'id="gallery">(.*?)</script>', text)[1])
    return record


def test_the_gallery_holds_every_measured_photo(client: TestClient) -> None:
    for _ in range(600):
        answer = client.get("/s0/index.html")
        if answer.status_code != 202:
            break
        time.sleep(0.1)
    assert answer.status_code == 200
    record = record_in(answer.text)
    assert record["index"] == [image for image in range(IMAGES) if image != PENDING]
    assert record["total"] == IMAGES
    assert record["photos"]
    assert not record["opens"]  # no live model was loaded
    assert client.get("/s2/index.html").status_code == 404


def test_a_thumbnail_is_upright_and_kept(client: TestClient) -> None:
    answer = client.get(f"/s0/thumbs/{TURNED}.jpg")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.headers["cache-control"] == "private, no-cache"  # a later server may show other photos
    shown = Image.open(io.BytesIO(answer.content))
    assert shown.size == (160, 107)
    assert shown.convert("RGB").getpixel((20, 50))[0] > 200
    assert shown.convert("RGB").getpixel((140, 50))[0] < 50
    again = client.get(f"/s0/thumbs/{TURNED}.jpg", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"/s0/thumbs/{TURNED}.jpg", headers={"if-none-match": '"other"'}).content == answer.content


def test_a_thumbnail_shows_what_the_model_sees(client: TestClient) -> None:
    """The store says: from the upper left corner, 100 pixels and one more per image, and 80 down."""
    shown = Image.open(io.BytesIO(client.get("/s1/thumbs/0.jpg").content))
    assert shown.size == (160, 128)
    reds = np.asarray(shown.convert("RGB"))[64, :, 0] > 128
    assert reds.sum() == pytest.approx(160 * 60 / 100, abs=1.5)
    assert Image.open(io.BytesIO(client.get("/s1/thumbs/2.jpg").content)).size == (160, 107)  # its frame is not known


@pytest.mark.parametrize(
    "path", [f"s0/thumbs/{GONE}.jpg", f"s0/thumbs/{PENDING}.jpg", "s0/thumbs/99.jpg", "s7/thumbs/0.jpg"]
)
def test_photos_that_are_not_there(client: TestClient, path: str) -> None:
    answer = client.get(f"/{path}")
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"}


def test_a_photo_that_changed_has_no_thumbnail(explorer: Explorer, tmp_path: Path) -> None:
    dataset = _photos(tmp_path / "photos")
    store = Explored(0, explorer.stores[0].measured, dataset, None)
    content = np.zeros(IMAGES, dtype=np.int64)
    content[[0, 1]] = dataset.content([0, 1])
    store.__dict__["content"] = content
    client = TestClient(create_app(Explorer([store], None, "1"), Access(None)), base_url="http://127.0.0.1")
    Image.new("RGB", (120, 80)).save(tmp_path / "photos" / "0001.png")
    assert client.get("/s0/thumbs/0.jpg").status_code == 200
    answer = client.get("/s0/thumbs/1.jpg")
    assert answer.status_code == 404
    assert "changed" in answer.json()["error"]


def test_the_cache_keeps_what_was_asked_for_last() -> None:
    rng = np.random.default_rng(0)
    cache, kept = ByteCache(1000), dict[int, bytes]()
    for step in range(2000):
        key = int(rng.integers(0, 20))
        if rng.random() < 0.5:
            assert cache.get(key) == kept.get(key)
            if key in kept:
                kept[key] = kept.pop(key)
        else:
            file = bytes([step % 256]) * int(rng.integers(1, 400))
            kept.pop(key, None)
            kept[key] = file
            while sum(map(len, kept.values())) > 1000:
                kept.pop(next(iter(kept)))
            cache.put(key, file)
    assert 2 < len(kept) < 20


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.mark.browser
def test_an_exported_gallery_shows_chosen_photos(explorer: Explorer, tmp_path: Path, browser: Browser) -> None:
    chosen = [1, TURNED, GONE, 8]
    written = [
        *gallery.PAGE.export(explorer, Choice({0: chosen})),  # type: ignore[misc]
        *thumbs.PAGE.export(explorer, Choice({0: chosen})),  # type: ignore[misc]
    ]
    for path, content in written:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    files = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file())
    assert files == ["s0/index.html", *(f"s0/thumbs/{index}.jpg" for index in (1, TURNED, 8))]
    assert record_in(written[0][1] if isinstance(written[0][1], str) else "")["index"] == chosen
    (tmp_path / f"s0/thumbs/{GONE}.jpg").write_bytes((tmp_path / "s0/thumbs/1.jpg").read_bytes())
    with quiet(browser) as page:
        page.goto((tmp_path / "s0/index.html").as_uri())
        page.wait_for_selector("html[data-ready=true]")
        page.wait_for_function(
            "[...document.images].length === 4 && [...document.images].every((one) => one.naturalWidth > 0)"
        )
