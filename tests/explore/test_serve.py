"""A real server in a process of its own: its start, its protocol and its end."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from classlens.cli import app as cli
from classlens.explore import serve as serving
from classlens.explore.explorer import Explorer
from tests.explore.conftest import MARKUP, photo_bytes
from tests.refusals import refused

SLOW_JOB = """
import sys, threading, time
from classlens.explore.explorer import Explorer
from classlens.explore.serve import serve
explorer = Explorer([], None, "0")
explorer.jobs.submit("long", "running", lambda: time.sleep(60))
explorer.jobs.submit("queued", "running", lambda: print("ran after the end", flush=True))
serve(explorer, port=0)
"""


def first_line(pipe: int) -> str:
    """A line byte by byte: a buffer would keep from ``communicate`` what it read beyond."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(pipe, 1)):
        line += byte
    return line.decode()


@contextmanager
def started(*command: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server, and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    try:
        line = first_line(process.stdout.fileno())
        assert line.startswith("Explore: http://"), (line, process.communicate(timeout=60))
        yield process, line.split()[1]
    finally:
        process.kill()
        process.communicate()


def stop(process: subprocess.Popen[str], number: int = signal.SIGINT) -> tuple[float, str, str]:
    """Seconds until the process has ended, and what it said."""
    begin = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return time.monotonic() - begin, out, err


def place(address: str) -> tuple[str, int]:
    match = re.match(r"http://(.*):(\d+)/", address)
    assert match is not None
    return match[1], int(match[2])


def raw(address: str, request: bytes) -> bytes:
    """The answer to the bytes of a request, until the server closes."""
    with socket.create_connection(("127.0.0.1", place(address)[1]), timeout=30) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def test_command_serves_a_store_and_stops(measured_folder: Path) -> None:
    command = ["-m", "classlens", "explore", str(measured_folder / MARKUP), "--port", "0"]
    with started(*command) as (process, address):
        host, port = place(address)
        assert host == "127.0.0.1"
        connection = http.client.HTTPConnection(host, port, timeout=60)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert (answer.status, b"builtin:cifar10" in answer.read()) == (200, True)
        assert answer.getheader("server") is None
        # Ways out of the site that a client library would tidy up.
        for path in (
            "/../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "//etc/passwd",
            "/s0/atlas/..%2f..%2f..%2fsecret.html",
        ):
            said = raw(address, f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
            assert said.split()[1] in (b"404", b"202")  # 202: the atlas is read first
            assert b"root:" not in said
            assert b"x-frame-options: DENY" in said
        assert b" 421 " in raw(address, b"GET / HTTP/1.0\r\n\r\n")
        assert b" 400 " in raw(address, f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nHost: evil.example\r\n\r\n".encode())
        assert b" 200 " not in raw(
            address,
            b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n"[:-2] + b"Connection: close\r\n\r\n",
        )
        upgrade = f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
        assert b" 101 " not in raw(
            address, f"{upgrade}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n".encode()
        )
        # A photo over a connection that stays open, and one that is too large.
        connection.request(
            "POST", "/api/photos?name=a.png", photo_bytes(), {"Content-Type": "application/octet-stream"}
        )
        answer = connection.getresponse()
        assert (answer.status, b"address" in answer.read()) == (200, True)
        connection.putrequest("POST", "/api/photos")
        for name, value in (("Content-Type", "application/octet-stream"), ("Content-Length", "21000000")):
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("connection")) == (413, "close")
        answer.read()
        # A browser keeps its connection.
        kept = http.client.HTTPConnection(host, port, timeout=60)
        kept.request("GET", "/index.html")
        kept.getresponse().read()
        seconds, out, err = stop(process)
    assert seconds < 5
    assert process.returncode == 0
    assert out == "Stop with Ctrl+C.\n"
    assert "Traceback" not in err


def test_end_while_the_model_is_at_work() -> None:
    with started("-c", SLOW_JOB) as (process, address):
        host, port = place(address)
        waiting = socket.create_connection((host, port))
        waiting.sendall(b"GET /api/jobs/1 HTTP/1.1\r\nHost: %s:%d\r\n\r\n" % (host.encode(), port))
        answer = b""
        while not answer.endswith(b"}"):
            answer += waiting.recv(65536)
        assert b'"state":"running"' in answer
        seconds, out, err = stop(process)
        waiting.close()
    assert seconds < 10, "the end waited for the job of 60 s"
    assert process.returncode == 0
    assert "ran after the end" not in out
    assert not err


def test_server_for_other_machines_needs_its_token() -> None:
    script = "from classlens.explore.explorer import Explorer\nfrom classlens.explore.serve import serve\n"
    with started("-c", f'{script}serve(Explorer([], None, "0"), "0.0.0.0", 0)') as (process, address):
        port = place(address)[1]
        token = address.partition("?token=")[2]
        assert len(token) >= 32
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/")
        refusal = connection.getresponse()
        assert (refusal.status, token.encode() in refusal.read()) == (401, False)
        connection.request("GET", f"/?token={token}", headers={"Host": "a-name-of-this-machine"})
        answer = connection.getresponse()
        answer.read()
        assert (answer.status, answer.getheader("location")) == (303, "/")
        cookie = (answer.getheader("set-cookie") or "").partition(";")[0]
        assert cookie == f"classlens_token_{port}={token}"
        connection.request("GET", "/", headers={"Cookie": cookie})
        answer = connection.getresponse()
        assert (answer.status, token.encode() in answer.read()) == (200, False)
        seconds, out, err = stop(process, signal.SIGTERM)
    assert seconds < 10
    assert "write the name of this one in the place of 0.0.0.0" in out
    assert token not in out + err


def test_port_in_use_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(lambda: serving.serve(Explorer([], None, "0"), port=port), f"127.0.0.1:{port} cannot be used", "--port")
        command = ["explore", "--model", "builtin:cifar10", "--port", str(port)]
        result = CliRunner().invoke(cli, command, env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert not result.stdout
    assert result.stderr.count("cannot be used") == 1
    assert "Traceback" not in result.stderr


def test_two_servers_never_share_a_port() -> None:
    first = serving._listener("127.0.0.1", 0)
    try:
        refused(lambda: serving._listener("127.0.0.1", first.getsockname()[1]), "cannot be used")
    finally:
        first.close()


@pytest.mark.parametrize("host", ["x" * 70, "a..b", "256.0.0.1", "203.0.113.7", ""])
def test_hosts_that_are_not_of_this_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(name: str, *args: object, **kwargs: object) -> object:
        name.encode("idna")  # as Python does before it asks a name server
        if name[:1].isdigit():
            raise socket.gaierror(-2, "Name or service not known")
        return original(name or None, *args, **kwargs)  # type: ignore[arg-type]

    original = socket.getaddrinfo
    if host:
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        refused(lambda: serving._listener(host, 0), "cannot be used")


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True), ("127.0.0.2", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False),
        ("192.168.1.2", False), ("localhost.evil.example", False), ("127.0.0.1.evil.example", False), ("", False),
    ],
)  # fmt: skip
def test_hosts_that_need_a_token(host: str, local: bool) -> None:
    assert serving._is_local(host) == local


def test_names_of_a_local_server() -> None:
    assert serving._names("127.0.0.2", 8000) == {"127.0.0.1:8000", "127.0.0.2:8000", "localhost:8000", "[::1]:8000"}
    # Browsers leave out the port of HTTP.
    assert {"127.0.0.1", "127.0.0.1:80", "localhost", "[::1]"} <= serving._names("127.0.0.1", 80)
