"""Photos that are sent: every kind of file is a page or one sentence, and neither memory nor disk fills."""

from __future__ import annotations

import asyncio
import io
import json
import os
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from starlette.applications import Starlette

from classlens.explore import answers
from classlens.explore.explorer import Explorer
from classlens.explore.uploads import LARGEST, Uploads
from classlens.lens.lens import Lens
from tests.explore.asking import Answer, ask, asking, shown
from tests.explore.conftest import MARKUP, photo_bytes
from tests.refusals import refused

BYTES = ("content-type", "application/octet-stream")


def send(app: Starlette, body: bytes | Iterable[bytes | float], name: str = "photo.png") -> Answer:
    return ask(app, f"/api/photos?name={name}", "POST", [BYTES], body)


def saved(kind: str, image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def turned() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return saved("JPEG", Image.new("RGB", (60, 40), (200, 0, 0)), exif=exif)


PHOTOS: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: photo_bytes(),
    "JPEG": lambda: photo_bytes(kind="JPEG"),
    "WebP": lambda: photo_bytes(kind="WEBP"),
    "GIF": lambda: photo_bytes(kind="GIF"),
    "BMP": lambda: photo_bytes(kind="BMP"),
    "TIFF": lambda: photo_bytes(kind="TIFF"),
    "PPM": lambda: photo_bytes(kind="PPM"),
    "animated GIF": lambda: saved("GIF", noise(), save_all=True, append_images=[Image.new("RGB", (64, 64))]),
    "16 bits": lambda: saved("PNG", Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16)),
    "floats": lambda: saved("TIFF", Image.fromarray(np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64))),
    "CMYK": lambda: saved("JPEG", noise().convert("CMYK")),
    "transparent": lambda: saved("PNG", noise().convert("RGBA")),
    "palette": lambda: saved("PNG", noise().convert("P")),
    "one bit": lambda: saved("PNG", noise().convert("1")),
    "turned by EXIF": turned,
    "a page behind a picture": lambda: photo_bytes(kind="GIF") + f"<html>{MARKUP}".encode(),
    "an archive behind a picture": lambda: photo_bytes(kind="JPEG") + b"PK\x03\x04" + b"\0" * 40,
    "smallest for the grid": lambda: saved("PNG", Image.new("RGB", (8, 8))),
}

BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "not an image"),
    "text": (lambda: b"a photo\n" * 100, "not an image"),
    "a page": (lambda: f"<html>{MARKUP}</html>".encode(), "not an image"),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', "not an image"),
    "PostScript": (lambda: saved("EPS", noise()), "not an image"),
    "PDF": (lambda: saved("PDF", noise()), "not an image"),
    "JPEG 2000": (lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 64, "not an image"),
    "icon": (lambda: saved("ICO", noise()), "not an image"),
    "truncated PNG": (lambda: saved("PNG", noise())[:6000], "truncated"),
    "truncated JPEG": (lambda: saved("JPEG", noise())[:1500], "truncated"),
    "truncated WebP": (lambda: saved("WEBP", noise())[:800], "cannot be read"),
    "truncated TIFF": (lambda: saved("TIFF", noise())[:9000], ""),
    "header alone": (lambda: b"\x89PNG\r\n\x1a\n", "not an image"),
    "no pixels": (lambda: b"P6 0 0 255\n", ""),
    "bomb": (lambda: png(30_000, 30_000), "too large"),
    "bomb that is long": (lambda: png(8, 1_000_000, b"\0" * 9_000_000), "20 times"),
    "infinite floats": (lambda: saved("TIFF", Image.fromarray(np.full((64, 64), np.inf, np.float32))), "inf"),
    "negative": (lambda: saved("TIFF", Image.fromarray(np.full((64, 64), -1, np.int32))), "from -1"),
    "too narrow": (lambda: saved("PNG", Image.new("RGB", (7, 60))), "8×8 tokens"),
    "too flat": (lambda: saved("PNG", Image.new("RGB", (60, 7))), "8×8 tokens"),
    "too long": (lambda: saved("PNG", Image.new("L", (10, 201))), "20 times"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PHOTOS)
def test_photos_of_every_kind_are_taken(kind: str, empty_app: Starlette) -> None:
    sent = send(empty_app, PHOTOS[kind](), "my%20photo.png")
    assert sent.status == 200, sent.text
    assert set(sent.json()) == {"address", "id", "name"}
    assert sent.json()["name"] == "my photo.png"
    kept = empty_app.state.explorer.uploads.get(sent.json()["id"])
    assert kept.picture().mode == "RGB"
    if kind not in ("PNG", "CMYK", "a page behind a picture", "smallest for the grid"):
        return
    page = shown(empty_app, "/" + sent.json()["address"])
    assert page.status == 200
    assert MARKUP not in page.text
    assert "my photo.png" in page.text


def test_a_photo_is_shown_upright(empty_app: Starlette) -> None:
    explorer = empty_app.state.explorer
    identifier = explorer.uploads.add("turned.jpg", turned())
    assert explorer.uploads.get(identifier).picture().size == (40, 60)


@pytest.mark.parametrize("kind", BROKEN)
def test_files_that_are_no_photo_are_one_sentence(kind: str, empty_app: Starlette) -> None:
    make, words = BROKEN[kind]
    content = make()
    begin = time.process_time()
    answer = send(empty_app, content, f"bad%20{MARKUP.replace('=', '%3D')}.png")
    assert time.process_time() - begin < 5
    assert answer.status == 400
    assert answer.sentence.count(". ") == 0
    assert f"'bad {MARKUP}.png'" in answer.sentence
    assert words in answer.sentence
    assert not empty_app.state.explorer.uploads._photos


def test_no_other_program_reads_a_photo(empty_app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would hand PostScript to Ghostscript, through a file on disk."""

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError("another program was started")

    for name in ("subprocess.Popen", "subprocess.check_call", "os.system", "tempfile.mkstemp"):
        monkeypatch.setattr(name, fail)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n"
    assert "not an image" in send(empty_app, postscript).sentence


def test_nothing_is_written(empty_app: Starlette) -> None:
    written: list[Any] = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                written.append(path)
        elif event in ("os.mkdir", "os.rename", "tempfile.mkstemp", "subprocess.Popen"):
            written.append((event, arguments))

    sys.addaudithook(watch)
    try:
        sent = [send(empty_app, PHOTOS[kind]()).json() for kind in ("PNG", "JPEG", "TIFF", "CMYK")]
        assert shown(empty_app, "/" + sent[0]["address"]).status == 200
        send(empty_app, BROKEN["truncated JPEG"][0]())
    finally:
        watching = False
    # asyncio opens sockets of its own; Python may keep what it compiled.
    assert not [path for path in written if "__pycache__" not in str(path)]


# Sizes and times


def test_more_bytes_than_are_taken(empty_app: Starlette) -> None:
    told = ask(empty_app, "/api/photos?name=big.png", "POST", [BYTES, ("content-length", str(LARGEST + 1))])
    taken = 0

    def stream() -> Iterator[bytes]:
        nonlocal taken
        while True:  # a chunked request may go on forever
            taken += 2**20
            yield b"\0" * 2**20

    streamed = send(empty_app, stream(), "big.png")
    lied = ask(empty_app, "/api/photos?name=big.png", "POST", [BYTES, ("content-length", "5")], [b"\0" * (LARGEST + 1)])
    for answer in (told, streamed, lied):
        assert answer.status == 413
        assert answer.sentence == "photo 'big.png' is larger than 20 MB: send a smaller one"
        assert answer.header("connection") == "close"
    assert taken <= LARGEST + 2**20
    exactly = photo_bytes(kind="GIF").ljust(LARGEST, b"\0")
    assert send(empty_app, exactly).status == 200


def test_photo_that_never_arrives_holds_nobody_up(empty_app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    received = answers.received

    async def impatient(request: Any, limit: int, subject: str) -> bytes:
        return await received(request, limit, subject, seconds=0.3)

    monkeypatch.setattr(answers, "received", impatient)

    def drops() -> Iterator[bytes | float]:
        while True:
            yield from (b"\0", 0.01)

    async def scene() -> list[Answer]:
        path = "/api/photos?name=slow.png"
        slow = [asyncio.create_task(asking(empty_app, path, "POST", [BYTES], drops())) for _ in range(8)]
        await asyncio.sleep(0.1)
        begin = time.monotonic()
        page = await asking(empty_app, "/index.html")
        ninth = await asking(empty_app, path, "POST", [BYTES], photo_bytes())
        assert not any(task.done() for task in slow) or time.monotonic() - begin > 0.2
        return [
            page,
            ninth,
            *await asyncio.gather(*slow),
            await asking(empty_app, path, "POST", [BYTES], photo_bytes()),
        ]

    page, ninth, *slow, after = asyncio.run(scene())
    assert page.status == after.status == 200
    assert ninth.status in (200, 503)
    if ninth.status == 503:
        assert ninth.header("retry-after") == "2"
    for answer in slow:
        assert answer.status == 408
        assert answer.sentence == "photo 'slow.png' did not arrive within 0.3 s: send it again"
        assert answer.header("connection") == "close"


def test_photo_that_breaks_off(empty_app: Starlette) -> None:
    async def scene() -> Answer:
        leaves = asyncio.Event()
        leaves.set()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            sent = iter([{"type": "http.request", "body": b"\0", "more_body": True}, {"type": "http.disconnect"}])

            async def breaks() -> Any:
                return next(sent)

            await empty_app(scope, breaks, send)

        return await asking(app, "/api/photos", "POST", [BYTES])

    answer = asyncio.run(scene())
    assert answer.status == 400
    assert answer.sentence == "photo 'photo' broke off: send it again"


# Names


@pytest.mark.parametrize(
    ("given", "shown_as"),
    [
        ("", "photo"),
        ("cat.png", "cat.png"),
        ("%2Fetc%2Fpasswd", "passwd"),
        ("..%2F..%2Fcat.png", "cat.png"),
        ("C%3A%5Cphotos%5Ccat.png", "cat.png"),
        ("%2F", "photo"),
        ("..", ".."),
        ("%E7%8C%AB.png", "猫.png"),
        ("a%00b%0D%0Ax%3A1.png", r"a\x00b\r\nx:1.png"),
        ("%FF%FE", "��"),
        ("%E2%80%AEgnp.exe", r"\u202egnp.exe"),
        ("x" * 3000, "x" * 200),
        ("%22%3B%20filename%3Devil", '"; filename=evil'),
        ("%ED%A0%80", "���"),
    ],
)
def test_names(given: str, shown_as: str, empty_app: Starlette) -> None:
    sent = send(empty_app, photo_bytes(), given)
    assert sent.json()["name"] == shown_as
    if not shown_as.isascii() or len(given) < 10:
        return
    page = shown(empty_app, "/" + sent.json()["address"])
    assert page.status == 200
    report = ask(empty_app, f"/api/photos/{sent.json()['id']}/report.html")
    assert report.status == 200
    assert report.header("content-disposition") == 'attachment; filename="report.html"'
    for answer in (sent, page, report):
        assert not [value for _, value in answer.headers if "\n" in value or "evil" in value]
    assert json.dumps(shown_as)[1:-1].replace("<", "\\u003c") in page.text


def test_a_name_of_10_000_characters_is_refused_as_an_address(empty_app: Starlette) -> None:
    assert send(empty_app, photo_bytes(), "x" * 10_000).status == 414


# Memory


def test_oldest_photos_make_room() -> None:
    photo = photo_bytes()
    by_count = Uploads(count=3)
    names = [by_count.add(f"{number}.png", photo) for number in range(5)]
    assert [by_count.get(name) is not None for name in names] == [False, False, True, True, True]
    by_bytes = Uploads(total=int(2.5 * len(photo)))
    names = [by_bytes.add(f"{number}.png", photo) for number in range(4)]
    assert [by_bytes.get(name) is not None for name in names] == [False, False, True, True]
    assert len(set(names)) == 4
    assert all(len(name) == 16 for name in names)


def test_photo_that_made_room_says_so(small_lens: Lens) -> None:
    from classlens.explore.app import create_app
    from classlens.explore.security import Access
    from tests.explore.asking import HOST

    explorer = Explorer([], small_lens, "0", uploads=Uploads(count=1))
    app = create_app(explorer, Access({HOST}))
    first = send(app, photo_bytes()).json()
    send(app, photo_bytes(1))
    answer = ask(app, f"/api/photos/{first['id']}/maps")
    assert answer.status == 404
    assert answer.sentence == "this photo is no longer kept: open it again"
    page = ask(app, "/" + first["address"])
    assert page.status == 404
    assert "this photo is no longer kept" in page.text


def test_no_photo_without_a_model() -> None:
    from classlens.explore.app import create_app
    from classlens.explore.security import Access
    from tests.explore.asking import HOST

    answer = send(create_app(Explorer([], None, "0"), Access({HOST})), photo_bytes())
    assert answer.status == 400
    assert "start with --model" in answer.sentence


def test_formats_are_those_of_photos() -> None:
    refused(lambda: Uploads().add("a.tga", saved("TGA", noise())), "not an image")
