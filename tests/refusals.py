"""What holds for every refusal of an input."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from jaxtyping import config

from classlens.errors import ClasslensError


@contextmanager
def unchecked() -> Iterator[None]:
    """Arguments of any type reach the code, as they do for users: only these tests run with a type checker."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", before)


def refused(call: Callable[[], object], *parts: str) -> str:
    """The call raises one sentence that holds the parts, and shows no other exception beside it."""
    with unchecked(), pytest.raises(ClasslensError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert ". " not in message
    assert not message.endswith(".")
    for part in parts:
        assert part in message, message
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count("Traceback") == 1
    return message


def refused_with_advice(call: Callable[[], object], *parts: str) -> None:
    """As above, and the sentence says what was expected and what to do."""
    message = refused(call, *parts)
    assert "expected" in message or "fewer than" in message
    assert ";" in message or ":" in message, "says nothing of what to do"
    assert len(message) < 400


def complaints(stderr: str) -> list[str]:
    """The lines of a command's stderr without the first one, which says how a model was loaded."""
    first, *rest = stderr.splitlines() or [""]
    return rest if " tokens; " in first else [first, *rest] if stderr else []
