"""Image tokens attend to themselves alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from classlens.core.arguments import checked
from classlens.forward.edits.attention_rows import attention_steps
from classlens.forward.edits.edit import Edit, EditStep
from classlens.forward.edits.selection import Indices, token_selector
from classlens.models.view import ModelView


@checked
@dataclass(frozen=True, eq=False)
class SelfOnly(Edit):
    """Every image token attends to itself alone: its row of attention weights is one-hot. Prefix tokens keep theirs.

    Args:
        blocks: indices of blocks, or ``"all"``.
        heads: indices of heads, or ``"all"``.

    Raises:
        ClasslensError: on entering ``Lens.edit``, for blocks or heads that the model does not have.

    Examples:
        >>> import classlens, torch
        >>> lens, pixels = classlens.load("builtin:cifar10"), torch.zeros(1, 3, 32, 32)
        >>> with lens.edit(classlens.SelfOnly(blocks=[4, 5])):
        ...     trace = lens.trace(pixels)

    Source: Vilas, Schaumlöffel and Roig, *Analyzing Vision Transformers for Image Classification in Class Embedding
    Space*, NeurIPS 2023.
    """

    label = "self only"
    about = "every image token attends to itself alone"

    blocks: Indices = "all"
    heads: Indices = "all"

    def steps(self, view: ModelView) -> Iterator[EditStep]:
        image = token_selector(view, "image")

        def attend_to_self(weights: Tensor) -> Tensor:
            one_hot = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
            return torch.where(image(weights)[:, None, :, None], one_hot, weights)

        return attention_steps(view, self.blocks, self.heads, attend_to_self)
