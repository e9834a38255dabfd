"""What every figure has in common: colors, names that can be drawn, and files that are there whole or not at all."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

# The same two colors in every figure and on the page; told apart with any common kind of color blindness.
CLS_COLOUR = "#b04a9a"
IMAGE_COLOUR = "#24895a"
# Vermillion speaks for the class, blue against it, white is zero.
SUPPORTS = "#d55e00"
OPPOSES = "#0072b2"
SIGNED = LinearSegmentedColormap.from_list("classlens_signed", [OPPOSES, "#f7f7f7", SUPPORTS])
MUTED = "#56606b"
_DPI = 150


def plain(name: str) -> str:
    """A name on one line, short, in characters that can be drawn."""
    line = " ".join("".join(one if one.isprintable() else " " for one in name).split())
    return line if len(line) <= 40 else f"{line[:39]}…"


def save(figure: Figure, path: Path, dpi: int = _DPI) -> None:
    """Write a figure in the format that the name ends in."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with warnings.catch_warnings():
            # A name in a script that the font lacks is drawn as boxes; the page and the record have it in full.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure.savefig(temporary, dpi=dpi, format=path.suffix[1:], bbox_inches="tight", pad_inches=0.08)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
