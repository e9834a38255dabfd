"""Colors of a map over its picture: a pale gray picture, and the map's colors laid over it."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize, to_rgb, to_rgba
from numpy.typing import NDArray
from PIL import Image

from classlens.palette import OPACITY, OPPOSES, SUPPORTS

Floats = NDArray[np.floating[Any]]

_OPACITIES = np.abs(np.linspace(-1, 1, 255)) * OPACITY
SIGNED: Colormap = ListedColormap(
    [to_rgba(SUPPORTS if level > 127 else OPPOSES, alpha) for level, alpha in enumerate(_OPACITIES)]
)
"""Signed values over a picture: the hue shows the sign and the opacity the size, so that zero is transparent."""


def faded(picture: Image.Image) -> Floats:
    """Gray levels of a picture, 0 to 1, paler than its own so that colors over them can be told apart."""
    return np.asarray(picture.convert("L"), dtype=np.float64) / 255 * 0.72 + 0.2


def blended(gray: Floats, share: Floats, signed: bool) -> Floats:
    """Colors ``[…, 3]`` of a map over gray levels; ``share`` is the map divided by its largest value."""
    if signed:
        color = np.where(share[..., None] > 0, to_rgb(SUPPORTS), to_rgb(OPPOSES))
        opacity = OPACITY * np.clip(np.abs(share), 0, 1)[..., None]
    else:
        color = colormaps["inferno"](np.clip(share, 0, 1))[..., :3]
        opacity = np.full((*share.shape, 1), OPACITY)
    colors: Floats = gray[..., None] * (1 - opacity) + color * opacity
    return colors


def color_scale(signed: bool, limit: float) -> ScalarMappable:
    """Colors of a map over middle gray, for its color bar from 0, or ``-limit`` if signed, to ``limit``."""
    share = np.linspace(-1 if signed else 0, 1, 256)
    middle = np.full(256, 0.5 * 0.72 + 0.2)
    return ScalarMappable(Normalize(-limit if signed else 0, limit), ListedColormap(blended(middle, share, signed)))
