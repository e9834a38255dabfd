"""All tokens but some are dropped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from classlens.core.arguments import Takes, checked
from classlens.core.arrays import Array
from classlens.forward.edits.attention_rows import attention_steps, renormalized
from classlens.forward.edits.edit import Edit, EditStep
from classlens.forward.edits.pooling import pooling_over
from classlens.forward.edits.selection import token_selector
from classlens.models.view import ModelView

Mask = Annotated[
    Tensor | Array,
    Takes("a bool mask [token] or [image, token]", lambda mask: str(mask.dtype) in ("torch.bool", "bool")),
]


@checked
@dataclass(frozen=True, eq=False)
class KeepTokens(Edit):
    """All other tokens are dropped after position embeddings; each image may keep different ones.

    Dropped tokens get no attention from others, the rows of the others sum to one again, and the head pools kept tokens
    alone. For the kept tokens and the logits that equals dropping the others, in every model, also where attention
    knows positions. Hidden states of dropped tokens are still computed and mean nothing. The edit acts before all
    others, as dropping would. With several such edits, a token stays only if all of them keep it. An image that keeps
    no token the head pools has NaN logits.

    Args:
        mask: bool tensor or array, ``[token]`` or ``[image, token]``; True keeps a token. Prefix tokens come first.

    Raises:
        ClasslensError: for anything but a bool mask; when the model runs, for a mask of
            another number of tokens or images.

    Examples:
        >>> import classlens, torch
        >>> lens, pixels = classlens.load("builtin:cifar10"), torch.zeros(1, 3, 32, 32)
        >>> mask = torch.arange(65) < 33  # [CLS] and the upper half of 8 × 8 image tokens
        >>> with lens.edit(classlens.KeepTokens(mask)):
        ...     logits = lens.trace(pixels).model_logits
    """

    label = "keep tokens"
    about = "all other tokens are dropped after position embeddings; each image may keep different ones"

    mask: Mask

    def steps(self, view: ModelView) -> Iterator[EditStep]:
        selector = token_selector(view, self.mask)

        def keep(weights: Tensor) -> Tensor:
            return renormalized(weights.masked_fill(~selector(weights)[:, None, None, :], 0.0))

        return attention_steps(view, "all", "all", keep, first=True)

    def contexts(self, view: ModelView) -> Iterator[AbstractContextManager[Any]]:
        yield pooling_over(view, token_selector(view, self.mask))
