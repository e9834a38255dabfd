"""Starting and stopping the server."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import webbrowser
from threading import Timer

import uvicorn

from classlens.errors import ClasslensError, cause
from classlens.explore.app import create_app
from classlens.explore.explorer import Explorer
from classlens.explore.security import Access
from classlens.text import say


def serve(explorer: Explorer, host: str = "127.0.0.1", port: int = 8000, *, open_browser: bool = False) -> None:
    """Serve the pages until an interrupt.

    A host that other machines reach makes every request need a token, which the printed address carries.
    Raises ClasslensError where the address cannot be used.
    """
    listener = _listener(host, port)
    port = listener.getsockname()[1]
    local = _is_local(host)
    token = None if local else secrets.token_urlsafe(24)
    names = ("127.0.0.1", "localhost", "[::1]") if local else ()
    access = Access(frozenset(f"{name}:{port}" for name in names) if local else None, token)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{port}/" + ("" if token is None else f"?token={token}")
    app = create_app(explorer, access)
    # A reader waits for no more than a connection that is kept open.
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=3, timeout_keep_alive=30, server_header=False
    )
    say(f"Explore: {address}")
    say("Stop with Ctrl+C.")
    if open_browser:
        Timer(0.5, webbrowser.open, [address]).start()
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        listener.close()


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens; raises ClasslensError for an address that cannot be used."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        except OSError:
            listener.close()
            raise
        return listener
    except OSError as error:
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
