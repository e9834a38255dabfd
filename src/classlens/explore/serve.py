"""Starting and stopping the server."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import sys
import webbrowser
from threading import Timer

import uvicorn

from classlens.errors import ClasslensError, cause
from classlens.explore.app import create_app
from classlens.explore.explorer import Explorer
from classlens.explore.jobs import Jobs
from classlens.explore.security import Access
from classlens.text import say

_LAST_WORK = 1.0
"""Seconds that the end of the server waits for the model."""


def serve(explorer: Explorer, host: str = "127.0.0.1", port: int = 8000, *, open_browser: bool = False) -> None:
    """Serve the pages until an interrupt.

    A host that other machines reach makes every request need a token, which the printed address carries.
    Raises ClasslensError where the address cannot be used.
    """
    listener = _listener(host, port)
    port = listener.getsockname()[1]
    local = _is_local(host)
    token = None if local else secrets.token_urlsafe(24)
    shown = f"[{host}]" if ":" in host else host
    access = Access(_names(shown, port) if local else None, token)
    address = f"http://{shown}:{port}/" + ("" if token is None else f"?token={token}")
    config = uvicorn.Config(
        create_app(explorer, access),
        log_level="warning",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=1,
    )
    say(f"Explore: {address}")
    if host in ("0.0.0.0", "::"):
        say(f"From another machine, write the name of this one in the place of {shown}.")
    say("Stop with Ctrl+C.")
    if open_browser:
        Timer(0.5, webbrowser.open, [address]).start()
    try:
        _Server(config, explorer.jobs).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        listener.close()
    if not explorer.jobs.close(_LAST_WORK):
        # The model is at work in another thread, which the end of Python would interrupt anywhere; nothing is written.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


class _Server(uvicorn.Server):
    """A server whose queue ends before it waits for its connections, some of which wait for the queue."""

    def __init__(self, config: uvicorn.Config, jobs: Jobs) -> None:
        super().__init__(config)
        self._jobs = jobs

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._jobs.close(0)
        await super().shutdown(sockets)


def _names(shown: str, port: int) -> frozenset[str]:
    """Hosts that a browser of this machine asks for; it leaves out the port of HTTP."""
    hosts = {shown, "127.0.0.1", "localhost", "[::1]"}
    return frozenset({f"{host}:{port}" for host in hosts} | (hosts if port == 80 else set()))


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens; raises ClasslensError for an address that cannot be used."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            if os.name == "posix":  # elsewhere two servers would get one port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen()  # two servers may bind one port until one of them listens
        except OSError:
            listener.close()
            raise
        return listener
    except (OSError, UnicodeError) as error:
        raise ClasslensError(
            f"{host}:{port} cannot be used ({cause(error)}): give another --port, or 0 for a free one"
        ) from None


def _is_local(host: str) -> bool:
    """Whether this machine alone reaches a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
