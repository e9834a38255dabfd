"""Answers to requests: pages, data, and errors in one sentence."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, NoReturn

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response

from classlens.errors import ClasslensError
from classlens.explore.explorer import NotFound
from classlens.explore.jobs import Busy
from classlens.text import visible

_log = logging.getLogger(__name__)

_LARGEST_BODY = 64 * 1024


def page(text: str, status: int = 200) -> Response:
    """An HTML page."""
    # A file name with invalid characters can only reach the title, where they are written as references.
    return HTMLResponse(text.encode("utf-8", errors="xmlcharrefreplace"), status)


def data(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON; raises ValueError for a number that is not finite."""
    text = json.dumps(visible(value), allow_nan=False, separators=(",", ":"))
    return Response(text, status, headers, "application/json")


def content_type(request: Request) -> str:
    """The type of a body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def json_text(request: Request, limit: int = _LARGEST_BODY) -> bytes:
    """The body of a request that says it is JSON; raises ClasslensError for another type."""
    if content_type(request) != "application/json":
        raise ClasslensError("the request is not of type application/json: send JSON")
    return await received(request, limit, "the request")


async def body(request: Request, limit: int = _LARGEST_BODY) -> Any:
    """The JSON of a request; raises ClasslensError for another content."""
    text = await json_text(request, limit)
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise ClasslensError("the request is not JSON: send a JSON object") from None


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


class TooLarge(ClasslensError):
    """A request of more bytes than are taken."""


class TooSlow(ClasslensError):
    """A request whose bytes do not arrive."""


async def received(request: Request, limit: int, subject: str, seconds: float = 60) -> bytes:
    """The body of a request; raises TooLarge as soon as it exceeds the limit, and TooSlow after some seconds."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 12 or int(length) > limit):
        raise _too_large(subject, limit)
    try:
        return await asyncio.wait_for(_streamed(request, limit, subject), seconds)
    except ClientDisconnect:
        raise ClasslensError(f"{subject} broke off: send it again") from None
    except TimeoutError:
        raise TooSlow(f"{subject} did not arrive within {seconds:g} s: send it again") from None


async def _streamed(request: Request, limit: int, subject: str) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(subject, limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(subject: str, limit: int) -> TooLarge:
    return TooLarge(f"{subject} is larger than {limit / 2**20:.3g} MB: send a smaller one")


def status_of(error: Exception) -> int:
    """The status that tells a program the kind of an error."""
    kinds = {NotFound: 404, TooSlow: 408, TooLarge: 413, Busy: 503}
    return next((status for kind, status in kinds.items() if isinstance(error, kind)), 400)


def error_answer(request: Request, error: Exception) -> Response:
    """An error as JSON, or as a page where a page was asked for."""
    if isinstance(error, ClasslensError):
        return _sentence(request, str(error), status_of(error))
    if isinstance(error, HTTPException):
        sentence = {
            404: "there is no page at this address: go to the start page",
            405: "this address takes no such request",
        }
        answer = _sentence(request, sentence.get(error.status_code, error.detail), error.status_code)
        answer.headers.update(error.headers or {})
        return answer
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _sentence(request, f"this is a mistake of classlens ({type(error).__name__}): its log says more", 500)


def _sentence(request: Request, sentence: str, status: int) -> Response:
    # The rest of a body that is not read would be taken for the next request.
    headers = {408: {"connection": "close"}, 413: {"connection": "close"}, 503: {"retry-after": "2"}}.get(status, {})
    if not request.url.path.startswith("/api/") and request.url.path.endswith((".html", "/")):
        from classlens.explore.message import message_page

        answer = page(message_page(request.app.state.explorer, request.url.path, sentence), status)
        answer.headers.update(headers)
        return answer
    return data({"error": sentence}, status, headers)
