"""Who may ask the server: a check of every request before it reaches a page, and headers of every answer."""

from __future__ import annotations

import hmac
from collections.abc import Collection
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "classlens_token"

_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Pages carry a stricter policy of their own; this one holds for everything else that a browser might show.
    "content-security-policy": "frame-ancestors 'none'",
}


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
    """ASGI middleware that refuses requests of other sites, of unknown names and without the token."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        await (self.app if refusal is None else refusal)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
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
        site = headers.get("sec-fetch-site", ["none"])[0]
        opens = scope["method"] == "GET" and headers.get("sec-fetch-mode", [""])[0] == "navigate"
        return site in ("none", "same-origin") or opens

    @staticmethod
    def _without_token(scope: Scope, headers: dict[str, list[str]], token: str) -> Response | None:
        """None for a request with the token in its cookie. One with the token in its address gets the cookie."""
        try:
            morsel = SimpleCookie("; ".join(headers.get("cookie", []))).get(COOKIE)
        except CookieError:
            morsel = None
        if morsel is not None and _equal(morsel.value, token):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if not any(name == "token" and _equal(value, token) for name, value in query):
            return _refused(401, "the address lacks the token: use the one that classlens printed")
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        # A path of two slashes would lead to another host.
        path = "/" + scope["path"].lstrip("/\\")
        answer = RedirectResponse(path + (f"?{rest}" if rest else ""), 303)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return answer


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _refused(status: int, sentence: str) -> Response:
    return PlainTextResponse(sentence + "\n", status)
