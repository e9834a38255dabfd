"""Thumbnails of the photos of a store, made when they are asked for."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from classlens.analysis.atlas.stored import AtlasStore
from classlens.errors import ClasslensError
from classlens.explore import openapi
from classlens.explore.byte_cache import ByteCache
from classlens.explore.explorer import Explored, Explorer, NotFound
from classlens.explore.page import Choice, Page
from classlens.models.geometry import input_window
from classlens.render.thumbnails import thumbnail
from classlens.tasks.tokens.attribution.schema import ATTRIBUTION

_CACHE_BYTES = 64 * 2**20
_AT_ONCE = 4
"""Photos that are decoded at the same time: each may take hundreds of megabytes."""

Frame = Callable[[int, tuple[int, int]], Sequence[float] | None]
"""From the index of an image and the height and width of its photo to the borders of the model's input."""


def frame_of(store: Explored) -> Frame:
    """Borders as they were measured, or as the live model has them; None where neither is known."""
    if store.has_atlas:
        with suppress(ClasslensError):
            frames = np.asarray(AtlasStore(store.measured.url).group(ATTRIBUTION)["frame"].values, dtype=np.float64)
            return lambda index, size: frames[index].tolist()
    lens = store.lens
    if lens is None:
        return lambda index, size: None

    def of_transform(index: int, size: tuple[int, int]) -> Sequence[float] | None:
        window = input_window(size, lens.preprocessing.transform)
        return None if window is None else window.frame

    return of_transform


class Thumbnails:
    """The thumbnails of all stores; those asked for last are kept in memory."""

    def __init__(self, explorer: Explorer, limit: int = _CACHE_BYTES) -> None:
        self._explorer = explorer
        self._frames: dict[int, Frame] = {}
        self._cache = ByteCache(limit)

    def kept(self, number: int, index: int) -> bytes | None:
        """A thumbnail that is there already."""
        return self._cache.get((number, index))

    def file(self, number: int, index: int) -> bytes:
        """A JPEG file; raises NotFound for a photo that is not there or is another one."""
        file = self.kept(number, index)
        if file is None:
            store = self._explorer.store(number)
            photo = store.picture(index)
            if number not in self._frames:
                self._frames[number] = frame_of(store)
            file = thumbnail(photo, self._frames[number](index, (photo.height, photo.width)))
            self._cache.put((number, index), file)
        return file


def _routes(explorer: Explorer) -> Sequence[BaseRoute]:
    thumbnails = Thumbnails(explorer)
    slots = asyncio.Semaphore(_AT_ONCE)
    # Another server at the same address shows other photos.
    server = secrets.token_hex(8)

    async def show(request: Request) -> Response:
        number, index = request.path_params["store"], request.path_params["index"]
        explorer.store(number).name(index)
        etag = f'"{server}-{number}-{index}"'
        headers = {"etag": etag, "cache-control": "private, no-cache"}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        file = thumbnails.kept(number, index)
        if file is None:
            async with slots:
                if await request.is_disconnected():  # its row has scrolled away
                    return Response(status_code=204)
                file = await run_in_threadpool(thumbnails.file, number, index)
        return Response(file, headers=headers, media_type="image/jpeg")

    return [Route("/s{store:int}/thumbs/{index:int}.jpg", show)]


def _export(explorer: Explorer, choice: Choice) -> Iterator[tuple[str, str | bytes]]:
    thumbnails = Thumbnails(explorer, limit=0)
    for number, images in choice.images.items():
        for index in images:
            with suppress(NotFound):  # the gallery shows a placeholder
                yield f"s{number}/thumbs/{index}.jpg", thumbnails.file(number, index)


PAGE = Page(
    _routes,
    {
        "/s{store}/thumbs/{index}.jpg": openapi.get(
            "A thumbnail of a photo, as the model sees it.",
            openapi.whole_number("store"),
            openapi.whole_number("index"),
            content="image/jpeg",
        )
    },
    _export,
)
