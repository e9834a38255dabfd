"""What holds for every refusal of an image or a data set."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest

from classlens.errors import ClasslensError


def refused(call: Callable[[], object], *parts: str) -> str:
    """The call raises one sentence that holds the parts, and shows no other exception beside it."""
    with pytest.raises(ClasslensError) as caught:
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
