"""Who is answered, and that every answer tells the browser what it may do."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.types import Message

from classlens.explore.app import create_app
from classlens.explore.explorer import Explorer
from classlens.explore.pages import start
from classlens.explore.security import Access
from tests.explore.asking import HOST, Answer, ask, shown
from tests.explore.conftest import MARKUP

TOKEN = "a-secret-Token_0"
BYTES = ("content-type", "application/octet-stream")
SITE = f"http://{HOST}"


@pytest.fixture
def guarded(explorer: Explorer) -> Starlette:
    """A server that other machines reach."""
    return create_app(explorer, Access(None, TOKEN))


def check_headers(answer: Answer) -> None:
    """Headers that OWASP asks of every answer, and no permission for another site."""
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("x-frame-options") == "DENY"
    assert answer.header("referrer-policy") == "no-referrer"
    assert answer.header("cross-origin-opener-policy") == "same-origin"
    assert answer.header("cross-origin-resource-policy") == "same-origin"
    assert answer.header("cache-control") is not None
    policy = answer.header("content-security-policy")
    assert policy is not None
    assert "frame-ancestors 'none'" in policy
    if (answer.header("content-type") or "").startswith("text/html"):
        inner = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', answer.text)
        assert inner is not None
        assert "default-src &#x27;none&#x27;" in inner[1]
        assert "unsafe" not in inner[1]
    else:
        assert "default-src 'none'" in policy
    assert not [name for name, _ in answer.headers if name.startswith("access-control")]
    assert not answer.values("server")
    assert answer.header("content-type") or answer.status in (204, 303)


REQUESTS: list[tuple[int, str, dict[str, Any]]] = [
    (200, "/", {}),
    (200, "/index.html", {"method": "HEAD"}),
    (200, "/api/openapi.json", {}),
    (404, "/nothing.html", {}),
    (404, "/nothing", {}),
    (404, "/s0/photos/3.html", {}),
    (404, "/s1/atlas/index.html", {}),
    (404, "/s0/atlas/classes/nothing.html", {}),
    (404, "/api/jobs/9", {}),
    (404, "/photos/0000.html", {}),
    (400, "/s0/photos/0.html?class=nothing", {}),
    (400, "/s0/photos/0.html?class=1&against=1", {}),
    (400, "/api/photos", {"method": "POST"}),
    (405, "/", {"method": "POST"}),
    (405, "/", {"method": "OPTIONS"}),
    (405, "/s0/photos/0.html", {"method": "DELETE"}),
    (405, "/api/photos", {"method": "PUT"}),
    (405, "/api/photos", {}),
    (405, "/", {"method": "TRACE"}),
    (413, "/api/photos", {"method": "POST", "headers": [BYTES, ("content-length", "9" * 30)]}),
    (414, "/" + "a" * 5000, {}),
    (414, "/index.html?" + "a=b&" * 2000, {}),
    (414, f"/s{'9' * 5000}/photos/0.html", {}),
    (400, f"/s0/photos/0.html?class={'9' * 3900}", {}),
    (404, f"/s{'9' * 3900}/photos/0.html", {}),
    (421, "/", {"host": "evil.example"}),
    (403, "/", {"headers": [("origin", "http://evil.example")]}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "address", "options"), REQUESTS, ids=lambda value: str(value)[:40])
def test_status_and_headers(status: int, address: str, options: dict[str, Any], app: Starlette) -> None:
    answer = ask(app, address, **options) if options else shown(app, address)
    assert answer.status == status
    check_headers(answer)
    if status == 405:
        assert set((answer.header("allow") or "").split(", ")) in ({"GET", "HEAD"}, {"POST"})
    if status == 413:
        assert answer.header("connection") == "close"


def test_mistake_of_ours_is_answered_with_all_headers(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(explorer: Explorer) -> str:
        raise RuntimeError("inner detail")

    monkeypatch.setattr(start, "start_page", fail)
    answer = ask(app, "/index.html")
    assert answer.status == 500
    assert "inner detail" not in answer.text
    assert "RuntimeError" in answer.text
    check_headers(answer)


# Names of the server


@pytest.mark.parametrize("host", [HOST, "LOCALHOST:8000", "[::1]:8000"])
def test_names_that_are_answered(host: str, explorer: Explorer) -> None:
    app = create_app(explorer, Access({HOST, "localhost:8000", "[::1]:8000"}))
    assert ask(app, "/", host=host).status == 200
    assert ask(app, "/", headers=[("origin", f"http://{host}")], host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        None, "", "evil.example", "evil.example:8000", "127.0.0.1", "127.0.0.1:8001", "127.0.0.1:8000.evil.example",
        "127.0.0.1:8000@evil.example", "evil.example@127.0.0.1:8000", "localhost:8000", "[::1]:8000", "127.1:8000",
        "0.0.0.0:8000", "2130706433:8000", "127.0.0.1:08000", "127.0.0.1:8000 ", "127.0.0.1:8000,evil.example",
    ],
)  # fmt: skip
def test_other_names_are_refused(host: str | None, app: Starlette) -> None:
    answer = ask(app, "/", host=host)
    assert answer.status == 421
    check_headers(answer)
    assert MARKUP not in answer.text


def test_two_names_are_refused(app: Starlette, guarded: Starlette) -> None:
    for application in (app, guarded):
        assert ask(application, "/", headers=[("host", HOST)]).status == 421
        assert ask(application, "/", headers=[("Host", "evil.example")]).status == 421


# Other sites


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1:8001"},
        {"origin": "http://127.0.0.1"},
        {"origin": f"http://{HOST}.evil.example"},
        {"origin": f"file://{HOST}"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "origin": SITE},
        {"sec-fetch-site": ""},
    ],
)
def test_requests_of_other_sites_are_refused(headers: dict[str, str], app: Starlette) -> None:
    for method, address in (("GET", "/index.html"), ("POST", "/api/photos"), ("GET", "/api/openapi.json")):
        assert ask(app, address, method, headers.items()).status == 403


def test_a_link_of_another_site_opens_a_page_and_sends_nothing(app: Starlette) -> None:
    link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]
    assert ask(app, "/index.html", headers=link).status == 200
    # A form of another site is a navigation too.
    assert ask(app, "/api/photos", "POST", link).status == 403
    twice = [*link, ("sec-fetch-mode", "cors")]
    assert ask(app, "/index.html", headers=twice).status == 403


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b", ""]
)
def test_types_that_forms_send_are_refused(kind: str, app: Starlette) -> None:
    """They need no preflight, so that an old browser without Sec-Fetch-Site would send them for any site."""
    answer = ask(app, "/api/photos", "POST", [("content-type", kind)] if kind else [], b"x")
    assert answer.status == 400
    assert "application/octet-stream" in answer.sentence


def test_preflight_gets_no_permission(app: Starlette) -> None:
    asked = [("origin", "http://evil.example"), ("access-control-request-method", "POST")]
    answer = ask(app, "/api/photos", "OPTIONS", asked)
    assert answer.status == 403
    check_headers(answer)


# The token


def test_token_becomes_a_cookie_and_leaves_the_address(guarded: Starlette) -> None:
    answer = ask(guarded, f"/s0/photos/0.html?class=cat&token={TOKEN}&against=a%26b")
    assert answer.status == 303
    assert answer.header("location") == "/s0/photos/0.html?class=cat&against=a%26b"
    cookie = answer.header("set-cookie") or ""
    name, value = cookie.split(";")[0].split("=")
    assert value == TOKEN
    flags = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=lax", "path=/"} <= flags
    assert not any(flag.startswith("domain") for flag in flags)
    check_headers(answer)
    assert ask(guarded, "/index.html", headers=[("cookie", f"{name}={TOKEN}")]).status == 200


@pytest.mark.parametrize(
    "cookie",
    [
        f"classlens_token_8000={TOKEN}",
        f"other=1; classlens_token_8000={TOKEN}; last=2",
        f'odd="[,{{}}"; ;=; classlens_token_8000={TOKEN}',
        f"classlens_token_8000=old; classlens_token_8000={TOKEN}",
    ],
)
def test_cookie_beside_those_of_other_servers(cookie: str, guarded: Starlette) -> None:
    assert ask(guarded, "/index.html", headers=[("cookie", cookie)]).status == 200


@pytest.mark.parametrize(
    ("address", "cookie"),
    [
        ("/", None),
        ("/?token=", None),
        ("/?token=wrong", None),
        (f"/?token={TOKEN[:-1]}", None),
        (f"/?token={TOKEN}x", None),
        (f"/?Token={TOKEN}", None),
        (f"/?token=%FF{TOKEN}", None),
        (f"/{TOKEN}", None),
        ("/", "classlens_token_8000=wrong"),
        ("/", "classlens_token_8000="),
        ("/", f"classlens_token_8001={TOKEN}"),
        ("/", f"x=classlens_token_8000={TOKEN}x"),
        ("/api/openapi.json", None),
        ("/api/jobs/1", "classlens_token_8000=\xff"),
        ("/nothing", None),
    ],
)
def test_without_the_token_nothing_is_told(address: str, cookie: str | None, guarded: Starlette) -> None:
    answer = ask(guarded, address, headers=[] if cookie is None else [("cookie", cookie)])
    assert answer.status == 401
    assert TOKEN not in answer.text + str(answer.headers)
    assert not answer.values("set-cookie")
    check_headers(answer)


@pytest.mark.parametrize(
    "path", [
        "//evil.example/", "/\\evil.example", "///evil.example", "/%5Cevil.example", "/%2F%2Fevil.example",
        "/a%0d%0aset-cookie:x=1", "/%09/evil.example", "//evil.example%2F..",
    ]
)  # fmt: skip
def test_redirect_stays_here(path: str, guarded: Starlette) -> None:
    answer = ask(guarded, f"{path}?token={TOKEN}")
    assert answer.status == 303
    location = answer.header("location") or ""
    assert re.match(r"/(?![/\\])", location), location
    assert not re.search(r"[\r\n\t]", location)
    assert TOKEN not in location
    assert len(answer.values("set-cookie")) == 1


def test_token_is_compared_in_constant_time(guarded: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return False

    monkeypatch.setattr("hmac.compare_digest", compare)
    cookie = [("cookie", f"classlens_token_8000={TOKEN}")]
    assert ask(guarded, f"/?token={TOKEN}", headers=cookie).status == 401
    assert compared == [(TOKEN.encode(), TOKEN.encode())] * 2


def test_other_sites_are_refused_with_the_token_too(guarded: Starlette) -> None:
    cookie = ("cookie", f"classlens_token_8000={TOKEN}")
    assert ask(guarded, "/api/photos", "POST", [cookie, ("origin", "http://evil.example")]).status == 403
    # A name that leads to this machine (DNS rebinding) is one that has no cookie.
    rebound = ask(guarded, "/", host="evil.example:8000", headers=[("origin", "http://evil.example:8000")])
    assert rebound.status == 401


# Paths


@pytest.mark.parametrize("prefix", ["/", "/s0/", "/s0/atlas/", "/s0/photos/", "/photos/", "/api/", "/api/jobs/"])
def test_no_path_leads_to_a_file(prefix: str, app: Starlette, measured_folder: Path) -> None:
    climbs = [
        "../secret.html", "..%2fsecret.html", "%2e%2e/secret.html", "%252e%252e%252fsecret.html", "..%5csecret.html",
        "..\\..\\secret.html", "....//secret.html", "%c0%ae%c0%ae/secret.html", "secret.html%00.html", "%00", "%ff%fe",
        "../" * 12 + "etc/passwd", f"{measured_folder}/secret.html", f"file://{measured_folder}/secret.html", "",
        "zarr.json", "~/", "%0d%0aset-cookie:a=b", "con", "..;/secret.html", "%E2%80%AE.html",
        "<script>alert(1)</script>.html",
    ]  # fmt: skip
    for climb in climbs:
        if prefix + climb == "/":  # the start page
            continue
        answer = ask(app, prefix + climb)
        assert answer.status in (400, 404), climb
        assert "secret of the owner" not in answer.text
        assert "root:" not in answer.text
        assert "<script>alert" not in answer.text
        check_headers(answer)


def test_names_are_no_markup(app: Starlette) -> None:
    for address in ("/index.html", "/s0/photos/0.html", "/s0/atlas/index.html", f"/s0/atlas/{MARKUP}.html"):
        answer = shown(app, address)
        assert MARKUP not in answer.text
        assert "onerror=alert" in answer.text or address.endswith("atlas/index.html")


# Other protocols


def test_web_sockets_are_refused(app: Starlette) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [(b"host", HOST.encode())], "query_string": b""}
    asyncio.run(app(scope, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]
