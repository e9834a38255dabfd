"""Bodies of requests, read as JSON or refused in a sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from classlens.errors import ClasslensError
from classlens.explore import answers
from classlens.explore.app import create_app
from classlens.explore.explorer import Explorer
from classlens.explore.security import Access
from tests.explore.asking import HOST, ask

JSON = ("content-type", "application/json")


@pytest.fixture
def echo() -> Starlette:
    """A server with an address that gives back what it read."""

    async def give_back(request: Request) -> Response:
        return answers.data({"read": await answers.body(request, limit=1000)})

    app = create_app(Explorer([], None, "0"), Access({HOST}))
    app.router.routes.append(Route("/api/echo", give_back, methods=["POST"]))
    return app


@pytest.mark.parametrize(
    ("text", "read"),
    [(b"{}", {}), (b'{"a": [1, null, "x"]}', {"a": [1, None, "x"]}), (b'"caf\xc3\xa9"', "café"), (b"-0.5e3", -500.0)],
)
def test_json_is_read(text: bytes, read: Any, echo: Starlette) -> None:
    for kind in ("application/json", "application/json; charset=utf-8", "Application/JSON"):
        assert ask(echo, "/api/echo", "POST", [("content-type", kind)], text).json() == {"read": read}
    parts = [text[:2], text[2:]]
    assert ask(echo, "/api/echo", "POST", [JSON], parts).json() == {"read": read}


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"{'a': 1}", b"NaN", b'{"a": Infinity}', b"-Infinity", b"\xff\xfe", b"\x00",
        b"[" * 900, b"01", b"{} {}", b'{"a":}',
    ],
)  # fmt: skip
def test_other_texts_are_refused(text: bytes, echo: Starlette) -> None:
    answer = ask(echo, "/api/echo", "POST", [JSON], text)
    assert answer.status == 400
    assert answer.sentence == "the request is not JSON: send a JSON object"


def test_numbers_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(text: bytes) -> Any:
        async def receive() -> Any:
            return {"type": "http.request", "body": text, "more_body": False}

        headers = [(b"content-type", b"application/json")]
        return await answers.body(Request({"type": "http", "headers": headers, "method": "POST"}, receive))

    with pytest.raises(ClasslensError, match="not JSON"):
        asyncio.run(scene(b"9" * 5000))
    with pytest.raises(ClasslensError, match="not JSON"):
        asyncio.run(scene(b"[" * 60_000))


@pytest.mark.parametrize(
    ("headers", "text", "status"),
    [
        ([], b"{}", 400),
        ([("content-type", "text/plain")], b"{}", 400),
        ([("content-type", "text/plain; application/json")], b"{}", 400),
        ([JSON], b" " * 1001, 413),
        ([JSON], [b" " * 600] * 2, 413),
        ([JSON, ("content-length", "1001")], b"{}", 413),
        ([JSON, ("content-length", "9" * 5000)], b"{}", 413),
        ([JSON, ("content-length", "\xb2")], b"{}", 200),
    ],
)
def test_types_and_sizes(
    headers: list[tuple[str, str]], text: bytes | Iterable[bytes], status: int, echo: Starlette
) -> None:
    assert ask(echo, "/api/echo", "POST", headers, text).status == status


def test_type_is_looked_at_before_the_body(echo: Starlette) -> None:
    parts = iter([b"{", b"}"])
    assert ask(echo, "/api/echo", "POST", [("content-type", "text/plain")], parts).status == 400
    assert next(parts) == b"{"


def test_answers_are_json_that_every_reader_takes() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        answers.data({"value": float("nan")})
    assert answers.data({"name": "a\u202eb\ud800"}).body == rb'{"name":"a\\u202eb\\ud800"}'
    assert answers.page("caf\udce9").body == b"caf&#56553;"
