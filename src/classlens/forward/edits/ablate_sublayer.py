"""The output of a sublayer is replaced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from classlens.core.arguments import checked
from classlens.forward.agreement import Sublayer
from classlens.forward.edits.columns import Replacement, checked_replacement, replacement
from classlens.forward.edits.edit import Edit, EditStep
from classlens.forward.edits.selection import Indices, TokenGroup, block_indices, check_sublayer, token_selector
from classlens.models.view import ModelView


@checked
@dataclass(frozen=True, eq=False)
class AblateSublayer(Edit):
    """The output that attention or an MLP adds to the residual stream is replaced.

    Args:
        sublayer: ``"attn"`` or ``"mlp"``.
        blocks: indices of blocks, or ``"all"``.
        tokens: tokens whose outputs are replaced, given like ``CutAttention.queries``.
        to: ``"zero"``; ``"mean"``, over the images of the batch at the same token; or a tensor or array that fits
            ``[image, token, width]``.

    Raises:
        ClasslensError: on entering ``Lens.edit``, for parts that the model does not have or an unknown ``to``; when the
            model runs, for a tensor that does not fit or the mean of one image.

    Examples:
        >>> import classlens, torch
        >>> lens, pixels = classlens.load("builtin:cifar10"), torch.zeros(1, 3, 32, 32)
        >>> with lens.edit(classlens.AblateSublayer("mlp", blocks=5)):
        ...     trace = lens.trace(pixels)
    """

    label = "ablate sublayer"
    about = "outputs of a sublayer become zero, their mean over the images of the batch, or a tensor"

    sublayer: Sublayer
    blocks: Indices = "all"
    tokens: TokenGroup = "all"
    to: Replacement = "zero"

    def steps(self, view: ModelView) -> Iterator[EditStep]:
        check_sublayer(self.sublayer)
        tokens, to = token_selector(view, self.tokens), checked_replacement(self.to)

        def replace(x: Tensor, _: slice) -> Tensor:
            return torch.where(tokens(x)[..., None], replacement(to, x), x)

        for block in block_indices(view, self.blocks):
            yield EditStep(f"{self.sublayer}_out", block, replace, replaces=True)
