"""Options of timm's models that the shapes in a checkpoint tell: classes, channels, patches, input size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from classlens.errors import ClasslensError
from classlens.models.checkpoint import State

Size = tuple[int, int]


def options_of(state: State, blank: nn.Module, given: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """Options that make the model of a checkpoint, apart from the given ones.

    Args:
        state: its tensors, under timm's names.
        blank: the architecture as it comes with the given options.
        given: the user's own options.
        path: the file, for errors.

    Raises:
        ClasslensError: position embeddings of tokens that form no square, whose height and width only the user knows.
    """
    embed: Any = blank.patch_embed
    options: dict[str, Any] = {}
    head, patches = state.get("head.weight"), state.get("patch_embed.proj.weight")
    if head is not None and head.ndim == 2:
        options["num_classes"] = len(head)
    stride: Size = (embed.img_size[0] // embed.grid_size[0], embed.img_size[1] // embed.grid_size[1])
    if patches is not None and patches.ndim == 4 and tuple(getattr(embed.proj, "kernel_size", ())) == stride:
        if patches.shape[1] != embed.proj.in_channels:
            options["in_chans"] = patches.shape[1]
        if tuple(patches.shape[2:]) != stride and "patch_size" not in given:
            stride = (patches.shape[2], patches.shape[3])
            options["patch_size"] = stride[0] if stride[0] == stride[1] else stride
    if "img_size" not in given:
        grid = _grid(state, blank, path, stride) or tuple(embed.grid_size)
        size = (grid[0] * stride[0], grid[1] * stride[1])
        if size != tuple(embed.img_size):
            options["img_size"] = size
    return {key: value for key, value in options.items() if key not in given}


def file_grid(state: State, blank: nn.Module) -> Size | int | None:
    """Rows and columns of image tokens in a file, their number where it is no square, or None where nothing tells."""
    model: Any = blank
    positions = state.get("pos_embed")
    if positions is not None and positions.ndim == 4:
        return int(positions.shape[1]), int(positions.shape[2])
    if positions is not None and positions.ndim == 3:
        # Files of other projects keep a position of [CLS] that timm adds to the token itself.
        prefixes = (0, 1) if getattr(model, "no_embed_class", False) else (int(model.num_prefix_tokens),)
        counts = [max(positions.shape[1] - prefix, 0) for prefix in prefixes]
        return next((_square(count) for count in counts if isinstance(_square(count), tuple)), counts[0])
    tables = [value for key, value in state.items() if key.endswith("relative_position_bias_table")]
    if not tables or tables[0].ndim != 2:
        return None
    # One row for each pair of offsets from -(n - 1) to n - 1, and three for pairs with [CLS] where a model has them.
    counts = [len(tables[0]), len(tables[0]) - 3]
    offsets = next((square[0] for count in counts if isinstance(square := _square(count), tuple)), 0)
    return ((offsets + 1) // 2, (offsets + 1) // 2) if offsets else None


def _grid(state: State, blank: Any, path: str | Path, stride: Size) -> Size | None:
    found, own = file_grid(state, blank), tuple(blank.patch_embed.grid_size)
    if not isinstance(found, int):
        return found
    if found == own[0] * own[1]:
        return own
    sides = [(rows, found // rows) for rows in range(math.isqrt(found), 1, -1) if found % rows == 0]
    rows, columns = sides[0] if sides else (1, max(found, 1))
    height, width = rows * stride[0], columns * stride[1]
    raise ClasslensError(
        f"checkpoint {str(path)!r} has position embeddings of {found} image tokens, which form no square: give the "
        f"input size that it was trained at as img_size=(height, width), such as ({height}, {width}) or "
        f"({width}, {height}), on the command line --img-size HEIGHT,WIDTH"
    )


def _square(count: int) -> Size | int:
    side = math.isqrt(count)
    return (side, side) if side * side == count else count
