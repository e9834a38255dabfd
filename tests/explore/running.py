"""A server in a thread of the test, which a browser can ask."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import uvicorn

from classlens.explore.app import create_app
from classlens.explore.explorer import Explorer
from classlens.explore.security import Access


@contextmanager
def running(explorer: Explorer, port: int = 0) -> Iterator[str]:
    """The address of a server, such as ``http://127.0.0.1:8000/``."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()  # a browser may connect before the server is up: it waits
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            create_app(explorer, Access({host})), log_level="warning", ws="none", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://{host}/"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
