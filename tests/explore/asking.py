"""Requests to an application, byte by byte as a hostile client would write them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message

HOST = "127.0.0.1:8000"


@dataclass(frozen=True)
class Answer:
    """Status, headers in lower case, and body of an answer."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def header(self, name: str) -> str | None:
        """The only value of a header; None without one."""
        values = self.values(name)
        assert len(values) <= 1, values
        return values[0] if values else None

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def sentence(self) -> str:
        """The error of a refusal in JSON."""
        error = json.loads(self.body)["error"]
        assert isinstance(error, str)
        return error

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    app: ASGIApp,
    address: str,
    method: str = "GET",
    headers: Iterable[tuple[str, str]] = (),
    body: bytes | Iterable[bytes | float] = b"",
    *,
    host: str | None = HOST,
) -> Answer:
    """The answer to a request; a number among the parts of a body is a pause in seconds."""
    return asyncio.run(asking(app, address, method, headers, body, host=host))


def shown(app: ASGIApp, address: str) -> Answer:
    """The answer once the model, or the reading of a store, is done."""
    while (answer := ask(app, address)).status == 202:
        time.sleep(0.02)
    return answer


async def asking(
    app: ASGIApp,
    address: str,
    method: str = "GET",
    headers: Iterable[tuple[str, str]] = (),
    body: bytes | Iterable[bytes | float] = b"",
    *,
    host: str | None = HOST,
    leaves: asyncio.Event | None = None,
) -> Answer:
    """As ``ask``, within a loop; the client leaves when an event is set."""
    raw, _, query = address.partition("?")
    sent = [*([] if host is None else [("host", host)]), *headers]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw),
        "raw_path": raw.encode("latin-1"),
        "root_path": "",
        "query_string": query.encode("latin-1"),
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in sent],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8000),
    }
    parts = iter([body] if isinstance(body, bytes) else body)
    ended = False
    messages: list[Message] = []

    async def receive() -> Message:
        nonlocal ended
        for part in parts:
            if isinstance(part, bytes):
                return {"type": "http.request", "body": part, "more_body": True}
            await asyncio.sleep(part)
        if not ended:
            ended = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await (leaves or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, send)
    start, *rest = messages
    assert start["type"] == "http.response.start"
    assert all(message["type"] == "http.response.body" for message in rest)
    return Answer(
        start["status"],
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]],
        b"".join(message.get("body", b"") for message in rest),
    )
