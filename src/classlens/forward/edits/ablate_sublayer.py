"""The output of a sublayer is replaced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from classlens.core.arguments import checked
from classlens.forward.agreement import Sublayer
from classlens.forward.edits.columns import Replacement, checked_replacement, replacement, replacement_at
from classlens.forward.edits.edit import Edit, EditStep
from classlens.forward.edits.selection import (
    Indices,
    TokenGroup,
    TokenSelector,
    block_indices,
    check_sublayer,
    token_selector,
)
from classlens.models.view import ModelView


@checked
@dataclass(frozen=True, eq=False)
class AblateSublayer(Edit):
    """The output that attention or an MLP adds to the residual stream is replaced.

    Args:
        sublayer: ``"attn"`` or ``"mlp"``.
        blocks: indices of blocks, or ``"all"``.
        tokens: tokens whose outputs are replaced, given like ``CutAttention.queries``.
        to: ``"zero"``; the ``Means`` of a data set at the same token; or a tensor or array that fits
            ``[image, token, width]``.

    Raises:
        ClasslensError: on entering ``Lens.edit``, for parts that the model does not have, an unknown ``to`` or means of
            another model; when the model runs, for a tensor or means that do not fit.

    Examples:
        >>> import classlens, torch
        >>> lens, pixels = classlens.load("builtin:cifar10"), torch.zeros(1, 3, 32, 32)
        >>> with lens.edit(classlens.AblateSublayer("mlp", blocks=5)):
        ...     trace = lens.trace(pixels)
    """

    label = "ablate sublayer"
    about = "outputs of a sublayer become zero, their means over a data set, or a tensor"

    sublayer: Sublayer
    blocks: Indices = "all"
    tokens: TokenGroup = "all"
    to: Replacement = "zero"

    def steps(self, view: ModelView) -> Iterator[EditStep]:
        check_sublayer(self.sublayer)
        tokens, to = token_selector(view, self.tokens), checked_replacement(view, self.to)
        point = f"{self.sublayer}_out"
        for block in block_indices(view, self.blocks):
            values = replacement_at(to, view, point, block)
            yield EditStep(point, block, partial(_replaced, tokens, values), replaces=True)


def _replaced(tokens: TokenSelector, to: Literal["zero"] | Tensor, x: Tensor, _: slice) -> Tensor:
    return torch.where(tokens(x)[..., None], replacement(to, x), x)
