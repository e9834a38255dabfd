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
        to: ``"zero"``; ``"mean"``, over the images of the batch at the same token; or a tensor or array that fits
            ``[image, token, channel]`` of the chosen heads, joined in the order given.

    Raises:
        ClasslensError: on entering ``Lens.edit``, for parts that the model does not have or an unknown ``to``; when the
            model runs, for a tensor that does not fit or the mean of one image.

    Examples:
        >>> import classlens, torch
        >>> lens, pixels = classlens.load("builtin:cifar10"), torch.zeros(2, 3, 32, 32)
        >>> with lens.edit(classlens.AblateHeads([0, 3], blocks=[5], to="mean")):
        ...     edited = lens.facts(pixels, "resid_post", "cat")
    """

    label = "ablate heads"
    about = "outputs of heads become zero, their mean over the images of the batch, or a tensor"

    heads: Indices
    blocks: Indices = "all"
    tokens: TokenGroup = "all"
    to: Replacement = "zero"

    def steps(self, view: ModelView) -> Iterator[EditStep]:
        heads, tokens = head_indices(view, self.heads), token_selector(view, self.tokens)
        to = checked_replacement(self.to)
        for block in block_indices(view, self.blocks):
            point, channels = joined_heads(view, block)
            change = partial(replace_columns, head_columns(heads, channels), tokens, to)
            yield EditStep(point, block, change, replaces=True)
