"""The colors of every figure and page, told apart with the common kinds of color blindness (after Okabe and Ito)."""

from __future__ import annotations

BLUE = "#0072b2"
VERMILLION = "#d55e00"
ORANGE = "#e69f00"
PLUM = "#a23b72"
TEAL = "#1b7f8c"
GRAY = "#8a8f98"
BLACK = "#14171b"
MUTED = "#56606b"
"""Axes, reference lines and notes."""
SERIES = (BLUE, VERMILLION, ORANGE, "#56b4e9", "#8c6d1f", "#5b5b5b", PLUM, TEAL)
"""Lines that have no color of their own take the next free one."""

CLS = "#b04a9a"
IMAGE_TOKENS = "#24895a"
"""``[CLS]`` and image tokens have these two colors everywhere, and nothing else has them."""

SUPPORTS = VERMILLION
OPPOSES = BLUE
"""Signed values: for the class, and against it. Zero is transparent."""
OPACITY = 0.72
"""Opacity of the strongest color of a map over its picture."""
