"""What a user gives for an option: the checks that several methods share."""

from __future__ import annotations

import numpy as np

from classlens.errors import ClasslensError


def is_whole_number(value: object) -> bool:
    """Whether it is a whole number; a bool is an int to Python alone."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def whole_number(name: str, value: object, low: int, high: int | None = None, *, hint: str = "") -> int:
    """A whole number from ``low`` to ``high``; raises ClasslensError for anything else.

    ``whole_number("block", 3, 0, 11)``; ``hint`` goes on after what was expected.
    """
    if not is_whole_number(value) or value < low or (high is not None and value > high):  # type: ignore[operator]
        wanted = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise ClasslensError(f"{name} {repr(value)[:40]} cannot be used: give a whole number {wanted}{hint}")
    return int(value)  # type: ignore[call-overload, no-any-return]
