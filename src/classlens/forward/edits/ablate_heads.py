"""Outputs of attention heads are replaced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from classlens.core.arguments import checked
from classlens.forward.edits.columns import (
    Replacement,
    checked_replacement,
    head_columns,
    joined_heads,
    replace_columns,
    replacement_at,
)
from classlens.forward.edits.edit import Edit, EditStep
from classlens.forward.edits.selection import Indices, TokenGroup, block_indices, head_indices, token_selector
from classlens.models.view import ModelView


@checked
@dataclass(frozen=True, eq=False)
class AblateHeads(Edit):
    """Outputs of attention heads are replaced, before an inner norm and the output projection.

    Args:
        heads: indices of heads, or ``"all"``.
        blocks: indices of blocks, or ``"all"``.
        tokens: tokens whose outputs are replaced, given like ``CutAttention.queries``.
        to: ``"zero"``; the ``Means`` of a data set at the same token; or a tensor or array that fits
            ``[image, token, channel]`` of the chosen heads, joined in the order given.

    Raises:
        ClasslensError: on entering ``Lens.edit``, for parts that the model does not have, an unknown ``to`` or means of
            another model; when the model runs, for a tensor or means that do not fit.

    Examples:
        >>> import classlens, torch
        >>> lens, pixels = classlens.load("builtin:cifar10"), torch.zeros(2, 3, 32, 32)
        >>> with lens.edit(classlens.AblateHeads([0, 3], blocks=[5])):
        ...     edited = lens.facts(pixels, "resid_post", "cat")
    """

    label = "ablate heads"
    about = "outputs of heads become zero, their means over a data set, or a tensor"

    heads: Indices
    blocks: Indices = "all"
    tokens: TokenGroup = "all"
    to: Replacement = "zero"

    def steps(self, view: ModelView) -> Iterator[EditStep]:
        heads, tokens = head_indices(view, self.heads), token_selector(view, self.tokens)
        to = checked_replacement(view, self.to)
        for block in block_indices(view, self.blocks):
            point, channels = joined_heads(view, block)
            columns = head_columns(heads, channels)
            values = replacement_at(to, view, point, block, columns)
            change = partial(replace_columns, columns, tokens, values)
            yield EditStep(point, block, change, replaces=True)
