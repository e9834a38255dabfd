"""The Hugging Face hub, which is asked once whether it is there: its clients would try for a minute."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlparse
from urllib.request import getproxies

from huggingface_hub import constants

from classlens.errors import cause

_SECONDS = 5.0


@contextmanager
def asked_once() -> Iterator[Callable[[BaseException], str]]:
    """Look in the cache alone where the hub cannot be reached; gives a function that says why something failed.

    A proxy, which may reach the hub where this machine does not, is left to the hub's client.
    """
    url = urlparse(constants.ENDPOINT)
    problem = None
    if not constants.HF_HUB_OFFLINE and not getproxies().get(url.scheme):
        try:
            socket.create_connection((url.hostname or "", url.port or 443), timeout=_SECONDS).close()
        except OSError as error:
            problem = f"{constants.ENDPOINT} cannot be reached: {error.strerror or cause(error)}"
    if problem is None:
        yield cause
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield lambda _: problem
    finally:
        constants.HF_HUB_OFFLINE = False
