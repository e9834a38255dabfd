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
from classlens.explore.page import Page
from classlens.explore.uploads import LARGEST

_SECONDS = 60
"""Time for a photo to arrive: a connection that sends forever is closed."""


def _routes(explorer: Explorer) -> Sequence[BaseRoute]:
    async def upload(request: Request) -> Response:
        if explorer.lens is None:
            raise ClasslensError("no model was loaded, so no photo can be read: start with --model")
        if request.headers.get("content-type", "").partition(";")[0].strip() not in _TYPES:
            raise ClasslensError("the request is not of type application/octet-stream: send the bytes of an image file")
        # The name is that of the file, without any folder.
        name = PurePosixPath(request.query_params.get("name", "").replace("\\", "/")).name[:200] or "photo"
        try:
            content = await asyncio.wait_for(answers.received(request, LARGEST, f"photo {name!r}"), _SECONDS)
        except TimeoutError:
            raise ClasslensError(f"photo {name!r} did not arrive within {_SECONDS} s: send it again") from None
        identifier = await run_in_threadpool(explorer.uploads.add, name, content)
        return answers.data({"address": f"photos/{identifier}.html", "id": identifier, "name": name})

    return [Route("/api/photos", upload, methods=["POST"])]


_TYPES = ("application/octet-stream",)

PAGE = Page(
    "Drop a photo",
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
