"""Checks of a user's options."""

from __future__ import annotations

import numpy as np

from classlens.errors import ClasslensError


def is_whole_number(value: object) -> bool:
    """Whether a value is a whole number; True and False are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def whole_number(name: str, value: object, low: int, high: int | None = None, *, hint: str = "") -> int:
    """The value as an int from ``low`` to ``high``; raises ClasslensError for anything else.

    ``hint`` is added to the end of the error.

    Examples:
        >>> whole_number("block", 3, 0, 11)
        3
    """
    if not is_whole_number(value) or value < low or (high is not None and value > high):  # type: ignore[operator]
        bounds = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise ClasslensError(f"{name} {repr(value)[:40]} cannot be used: give a whole number {bounds}{hint}")
    return int(value)  # type: ignore[call-overload, no-any-return]
