"""Who may ask the server: a check of every request before it reaches a page, and headers of every answer."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LONGEST = 4_000
"""Bytes of the longest address that is read; Python refuses to read whole numbers of more digits than 4,300."""

_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
# Pages carry a stricter policy of their own, which tells their scripts by digest.
_POLICY_OF_PAGES = "frame-ancestors 'none'"
_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"


@dataclass(frozen=True)
class Access:
    """Names that a request may call the server by, and the token that it must carry.

    Attributes:
        hosts: allowed values of the Host header, such as ``127.0.0.1:8000``; None allows all, which a token makes safe.
            A page of another site whose name leads to this address (DNS rebinding) has another Host.
        token: secret of a server that other machines reach; None for one on this machine alone.
    """

    hosts: Collection[str] | None
    token: str | None = None


class Guard:
    """ASGI middleware that refuses requests of other sites, of unknown names and without the token.

    ``failed`` makes the answer to a request that ended in an exception, so that it has the headers of all others.
    """

    def __init__(self, app: ASGIApp, access: Access, failed: Callable[[Request, Exception], Response]) -> None:
        self.app, self.access, self.failed = app, access, failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                shows = headers.get("content-type", "").startswith("text/html")
                headers.setdefault("content-security-policy", _POLICY_OF_PAGES if shows else _POLICY)
            await send(message)

        refusal = self._refusal(scope)
        try:
            await (self.app if refusal is None else refusal)(scope, receive, send_with_headers)
        except Exception as error:
            if started:
                raise
            await self.failed(Request(scope), error)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        if len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"]) > _LONGEST:
            return _refused(414, f"the address is longer than {_LONGEST:,} bytes: use a shorter one")
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        if len(hosts) != 1 or (self.access.hosts is not None and hosts[0].lower() not in self.access.hosts):
            return _refused(421, "this server is not called by this name: use the address that classlens printed")
        if not self._same_site(scope, headers, hosts[0]):
            return _refused(403, "requests of other sites are refused: open the page itself")
        return None if self.access.token is None else self._without_token(scope, headers, self.access.token)

    @staticmethod
    def _same_site(scope: Scope, headers: dict[str, list[str]], host: str) -> bool:
        """Whether no other site asks: links from elsewhere may open a page, and nothing else."""
        origins = headers.get("origin", [])
        if any(origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}") for origin in origins):
            return False
        if scope["method"] == "GET" and headers.get("sec-fetch-mode") == ["navigate"]:
            return True
        return all(site in ("none", "same-origin") for site in headers.get("sec-fetch-site", []))

    @staticmethod
    def _without_token(scope: Scope, headers: dict[str, list[str]], token: str) -> Response | None:
        """None for a request with the token in its cookie. One with the token in its address gets the cookie."""
        # All servers of a machine share its cookies, whatever their ports.
        name = f"classlens_token_{scope['server'][1]}"
        if any(_equal(value, token) for value in _cookies(headers.get("cookie", []), name)):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if not any(key == "token" and _equal(value, token) for key, value in query):
            return _refused(401, "the address lacks the token: use the one that classlens printed")
        rest = urlencode([(key, value) for key, value in query if key != "token"])
        # A path of two slashes would lead to another host.
        path = "/" + scope["path"].lstrip("/\\")
        answer = RedirectResponse(path + (f"?{rest}" if rest else ""), 303)
        # Lax: a link from elsewhere opens a page, as without a token; all else from there is refused before.
        answer.set_cookie(name, token, httponly=True, samesite="lax")
        return answer


def _cookies(headers: list[str], name: str) -> list[str]:
    """Values of the cookies of a name; a cookie of another server that is no good does not hide them."""
    pairs = (pair.partition("=") for header in headers for pair in header.split(";"))
    return [value.strip() for key, _, value in pairs if key.strip() == name]


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _refused(status: int, sentence: str) -> Response:
    return PlainTextResponse(sentence + "\n", status)
