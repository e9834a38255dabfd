"""The server of `classlens explore`: routes of all pages behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from classlens.errors import ClasslensError
from classlens.explore import answers
from classlens.explore.explorer import Explorer
from classlens.explore.registry import PAGES
from classlens.explore.security import Access, Guard


def create_app(explorer: Explorer, access: Access) -> Starlette:
    """The ASGI application of an explorer.

    ``create_app(Explorer([], lens, "0.1.0"), Access({"127.0.0.1:8000"}))``
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        explorer.jobs.close(0)

    async def describe(request: Request) -> Response:
        return answers.data(openapi(explorer))

    handlers: dict[Any, Any] = dict.fromkeys((ClasslensError, HTTPException), answers.error_answer)
    app = Starlette(
        routes=[
            Route("/api/openapi.json", describe),
            *(route for page in PAGES.values() for route in page.routes(explorer)),
        ],
        middleware=[Middleware(Guard, access, answers.error_answer)],
        exception_handlers=handlers,
        lifespan=lifespan,
    )
    app.state.explorer = explorer
    # A slash at the end is another address, not a redirect to a name that the request gave.
    app.router.redirect_slashes = False
    return app


def openapi(explorer: Explorer) -> dict[str, Any]:
    """The OpenAPI description of all addresses."""
    paths = {path: operations for page in PAGES.values() for path, operations in page.paths.items()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "classlens explore", "version": explorer.version},
        "paths": {"/api/openapi.json": {"get": {"responses": {"200": {"description": "this description"}}}}, **paths},
    }
