"""Photos that are dropped on a page."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import PurePosixPath

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from classlens.errors import ClasslensError
from classlens.explore import answers, openapi
from classlens.explore.explorer import Explorer
from classlens.explore.jobs import Busy
from classlens.explore.page import Page
from classlens.explore.uploads import LARGEST

_AT_ONCE = 8
"""Photos that arrive at the same time: their bytes are held meanwhile."""
_TYPES = ("application/octet-stream",)


def _routes(explorer: Explorer) -> Sequence[BaseRoute]:
    arriving = asyncio.Semaphore(_AT_ONCE)
    # One photo at a time, since a small file may hold as many pixels as Pillow lets pass.
    decoding = asyncio.Semaphore(1)

    async def upload(request: Request) -> Response:
        lens = explorer.lens
        if lens is None:
            raise ClasslensError("no model was loaded, so no photo can be read: start with --model")
        if answers.content_type(request) not in _TYPES:
            raise ClasslensError("the request is not of type application/octet-stream: send the bytes of an image file")
        # The name is that of the file, without any folder.
        name = PurePosixPath(request.query_params.get("name", "").replace("\\", "/")).name[:200] or "photo"
        if arriving.locked():
            raise Busy(f"{_AT_ONCE} photos arrive already: try again in a moment")
        async with arriving:
            content = await answers.received(request, LARGEST, f"photo {name!r}")
            smallest = lens.view.grid(lens.view.input_size)
            async with decoding:
                identifier = await run_in_threadpool(explorer.uploads.add, name, content, smallest)
        return answers.data({"address": f"photos/{identifier}.html", "id": identifier, "name": name})

    return [Route("/api/photos", upload, methods=["POST"])]


PAGE = Page(
    _routes,
    {
        "/api/photos": openapi.post(
            "Take a photo, until the server stops.",
            openapi.text("name"),
            schema={"type": "string", "format": "binary"},
            accepts=_TYPES,
        )
    },
)
