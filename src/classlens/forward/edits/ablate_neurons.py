"""Memory coefficients are replaced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from classlens.core.arguments import checked
from classlens.forward.agreement import Sublayer
from classlens.forward.edits.columns import Replacement, checked_replacement, replace_columns, replacement_at
from classlens.forward.edits.edit import Edit, EditStep
from classlens.forward.edits.selection import Indices, TokenGroup, block_indices, token_selector, unit_indices
from classlens.models.view import ModelView


@checked
@dataclass(frozen=True, eq=False)
class AblateNeurons(Edit):
    """Memory coefficients are replaced: activations of hidden units of the MLP, or of channels of attention.

    Args:
        units: indices of hidden units or channels, or ``"all"``.
        blocks: indices of blocks, or ``"all"``.
        tokens: tokens whose coefficients are replaced, given like ``CutAttention.queries``.
        to: ``"zero"``; the ``Means`` of a data set at the same token; or a tensor or array that fits
            ``[image, token, unit]`` of the chosen units, in the order given.
        sublayer: ``"mlp"`` or ``"attn"``.

    Raises:
        ClasslensError: on entering ``Lens.edit``, for parts that the model does not have, an unknown ``to`` or means of
            another model; when the model runs, for a tensor or means that do not fit.

    Examples:
        >>> import classlens, torch
        >>> lens, pixels = classlens.load("builtin:cifar10"), torch.zeros(1, 3, 32, 32)
        >>> with lens.edit(classlens.AblateNeurons([17, 201], blocks=[5])):
        ...     edited = lens.facts(pixels, "resid_post", "cat")
    """

    label = "ablate neurons"
    about = "memory coefficients become zero, their means over a data set, or a tensor"

    units: Indices
    blocks: Indices = "all"
    tokens: TokenGroup = "all"
    to: Replacement = "zero"
    sublayer: Sublayer = "mlp"

    def steps(self, view: ModelView) -> Iterator[EditStep]:
        tokens, to = token_selector(view, self.tokens), checked_replacement(view, self.to)
        point = f"{self.sublayer}_coefficients"
        for block in block_indices(view, self.blocks):
            columns = torch.tensor(unit_indices(view, block, self.sublayer, self.units))
            change = partial(replace_columns, columns, tokens, replacement_at(to, view, point, block, columns))
            yield EditStep(point, block, change, replaces=True)
