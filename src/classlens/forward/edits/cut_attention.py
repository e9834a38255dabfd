"""Attention from some tokens to others is cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from classlens.core.arguments import checked
from classlens.forward.edits.attention_rows import attention_steps, renormalized
from classlens.forward.edits.edit import Edit, EditStep
from classlens.forward.edits.selection import Indices, TokenGroup, token_selector
from classlens.models.view import ModelView


@checked
@dataclass(frozen=True, eq=False)
class CutAttention(Edit):
    """Attention weights from some tokens to some others become 0.

    Args:
        queries: tokens that attend: ``"cls"``, ``"image"``, ``"prefix"``, ``"all"``, another prefix token's name,
            indices, a slice, or a bool mask ``[token]`` or ``[image, token]``.
        keys: tokens that are attended to, given like ``queries``.
        renormalize: scale what remains of a row to sum to one. A row of zeros stays zero.
        blocks: indices of blocks, or ``"all"``.
        heads: indices of heads, or ``"all"``.

    Raises:
        ClasslensError: on entering ``Lens.edit``, for tokens, blocks or heads that the model does not have.

    Examples:
        >>> import classlens, torch
        >>> lens, pixels = classlens.load("builtin:cifar10"), torch.zeros(1, 3, 32, 32)
        >>> with lens.edit(classlens.CutAttention(queries="cls", keys=[1, 2, 3], renormalize=True, blocks=[4, 5])):
        ...     edited = lens.facts(pixels, "resid_post", "cat")
    """

    label = "cut attention"
    about = "attention weights from some tokens to others become 0"

    queries: TokenGroup
    keys: TokenGroup
    renormalize: bool = False
    blocks: Indices = "all"
    heads: Indices = "all"

    def steps(self, view: ModelView) -> Iterator[EditStep]:
        queries, keys = token_selector(view, self.queries), token_selector(view, self.keys)

        def cut(weights: Tensor) -> Tensor:
            cut_pairs = queries(weights)[:, None, :, None] & keys(weights)[:, None, None, :]
            remaining = weights.masked_fill(cut_pairs, 0.0)
            return renormalized(remaining) if self.renormalize else remaining

        return attention_steps(view, self.blocks, self.heads, cut)


@checked
@dataclass(frozen=True, eq=False)
class NoCls(CutAttention):
    """Image tokens do not attend to ``[CLS]``.

    Args:
        renormalize: scale the remaining rows to sum to one. The published experiment does not.
        blocks: indices of blocks, or ``"all"``.
        heads: indices of heads, or ``"all"``.

    Raises:
        ClasslensError: on entering ``Lens.edit``, for a model without ``[CLS]`` token, or blocks or heads that it does
            not have.

    Examples:
        >>> import classlens, torch
        >>> lens, pixels = classlens.load("builtin:cifar10"), torch.zeros(1, 3, 32, 32)
        >>> with lens.edit(classlens.NoCls()):
        ...     edited = lens.facts(pixels, "resid_post", "cat")

    Source: Vilas, Schaumlöffel and Roig, *Analyzing Vision Transformers for Image Classification in Class Embedding
    Space*, NeurIPS 2023.
    """

    label = "no [CLS]"
    about = "image tokens do not attend to [CLS]"

    queries: TokenGroup = field(default="image", init=False)
    keys: TokenGroup = field(default="cls", init=False)
