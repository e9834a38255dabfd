"""Shared parts of all figures: names that can be drawn, and files that exist complete or not at all."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from classlens import palette

PIXELATED_BELOW = 97
"""Pictures whose longer side has fewer pixels are drawn with sharp pixels, larger ones smoothed."""
_DPI = 150
DIVERGING = LinearSegmentedColormap.from_list("effects", [palette.OPPOSES, "#f3f5f7", palette.SUPPORTS]).with_extremes(
    bad="#d5dbe1"
)
"""Colors of effects of either sign, light at 0; gray where an effect is not defined."""


def plain(name: str) -> str:
    """A name on one line, at most 40 characters, without characters that cannot be drawn."""
    line = " ".join("".join(char if char.isprintable() else " " for char in name).split())
    return line if len(line) <= 40 else f"{line[:39]}…"


def interpolation(longer_side: int) -> str:
    """Matplotlib's name of the interpolation for a picture of this size in pixels."""
    return "nearest" if longer_side < PIXELATED_BELOW else "antialiased"


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the path's ending."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with warnings.catch_warnings():
            # Characters that the font lacks are drawn as boxes; the page and the record show them in full.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            # The default compression takes 2.6 times as long for files that are 7 % smaller.
            options: dict[str, Any] = {"pil_kwargs": {"compress_level": 4}} if path.suffix == ".png" else {}
            figure.savefig(temporary, dpi=_DPI, format=path.suffix[1:], bbox_inches="tight", pad_inches=0.08, **options)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
