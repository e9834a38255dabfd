"""Activation patching: activations of another image replace those of the image that runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from classlens.core.arguments import checked, taken
from classlens.core.arrays import Array
from classlens.errors import ClasslensError
from classlens.forward.edits.columns import head_columns, joined_heads, replace_columns
from classlens.forward.edits.edit import Edit, EditStep
from classlens.forward.edits.selection import (
    Indices,
    TokenGroup,
    TokenSelector,
    block_indices,
    head_indices,
    token_selector,
)
from classlens.forward.run import run
from classlens.models.view import ModelView

PatchSite = Literal["embed", "resid_pre", "attn_out", "mlp_out", "resid_post", "heads"]
PATCH_SITES: tuple[PatchSite, ...] = get_args(PatchSite)


@checked
@dataclass(frozen=True, eq=False)
class Patch(Edit):
    """Activations of another image's run replace those of the image that runs.

    The source runs once, on entering ``Lens.edit``: with the edits of contexts around this one, without those given
    beside it. A patched residual stream counts as added by the MLP before it, so that law 1 still holds. Edits of the
    same block belong in the same ``Lens.edit``, as edits of a context within this one act on patched activations.

    Args:
        site: ``"embed"``, ``"resid_pre"``, ``"attn_out"``, ``"mlp_out"``, ``"resid_post"``, or ``"heads"``.
        source: preprocessed pixels ``[image, channel, height, width]`` of one image, or of as many as will run; a
            tensor or array of floats.
        blocks: indices of blocks, or ``"all"``; ``embed`` is block 0 whatever is given.
        tokens: tokens whose activations are replaced, given like ``CutAttention.queries``.
        heads: for the site ``"heads"``: indices of heads, or ``"all"``.

    Raises:
        ClasslensError: on entering ``Lens.edit``, for an unknown site, a source that is not such pixels, or parts that
            the model does not have; when the model runs, for another number of images or tokens than the source has.

    Examples:
        >>> import classlens, torch
        >>> lens = classlens.load("builtin:cifar10")
        >>> clean, corrupt = torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)
        >>> with lens.edit(classlens.Patch("resid_post", source=clean, blocks=[3], tokens="image")):
        ...     patched = lens.trace(corrupt).model_logits

    Source: activation patching, also known as interchange intervention or causal tracing (Meng et al., *Locating and
    Editing Factual Associations in GPT*, NeurIPS 2022).
    """

    label = "patch"
    about = "activations of another image's run replace those of the image that runs"

    site: PatchSite
    source: Tensor | Array = field(repr=False)
    blocks: Indices = "all"
    tokens: TokenGroup = "all"
    heads: Indices | None = None

    def steps(self, view: ModelView) -> Iterator[EditStep]:
        if (self.site == "heads") != (self.heads is not None):
            raise ClasslensError("heads= goes with site 'heads' of a patch, which needs it: give both or neither")
        tokens = token_selector(view, self.tokens)
        columns: dict[int, Tensor] = {}
        points: list[tuple[str, int]] = []
        for block in [0] if self.site == "embed" else block_indices(view, self.blocks):
            if self.site == "heads":
                assert self.heads is not None
                point, channels = joined_heads(view, block)
                columns[block] = head_columns(head_indices(view, self.heads), channels)
                points.append((point, block))
            elif self.site in ("embed", "resid_pre"):  # the input of a block is the output of the one before
                points.append(("resid_post", block - 1) if block > 0 else ("resid_pre", 0))
            else:
                points.append((self.site, block))
        for (point, block), activation in self._source_activations(view, points).items():
            if point == "resid_post":
                yield from _residual_steps(block, tokens, activation)
            elif block in columns:
                change = partial(_patched_columns, columns[block], tokens, activation)
                yield EditStep(point, block, change, replaces=True)
            else:
                yield EditStep(point, block, partial(_patched, tokens, activation), replaces=True)

    def _source_activations(self, view: ModelView, points: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Tensor]:
        """The tensors that pass at these points while the source runs."""
        source = self._source_pixels(view)
        activations: dict[tuple[str, int], Tensor] = {}

        def receive(point: str, block: int, x: Tensor) -> None:
            if (point, block) in points:
                activations[point, block] = x

        run(view, source, {point: partial(receive, point) for point, _ in points}, exposing_coefficients=True)
        return activations

    def _source_pixels(self, view: ModelView) -> Float[Tensor, "image channel height width"]:
        source: Tensor = taken("source", self.source, Tensor)
        expected = f"give preprocessed pixels [image, {view.channels}, height, width]"
        if source.ndim != 4 or source.shape[1] != view.channels or not len(source):
            raise ClasslensError(
                f"a tensor of shape {list(source.shape)} was given as the source of a patch: {expected}"
            )
        if not source.is_floating_point():
            raise ClasslensError(f"a tensor of type {source.dtype} was given as the source of a patch: {expected}")
        view.tokens((source.shape[2], source.shape[3]))
        return source


def _residual_steps(block: int, tokens: TokenSelector, source: Tensor) -> Iterator[EditStep]:
    """The output of a block, changed by way of its MLP's output."""
    parts: dict[str, Tensor] = {}

    def keep(name: str, x: Tensor, _: slice) -> Tensor:
        parts[name] = x
        return x

    def replace(x: Tensor, _: slice) -> Tensor:
        middle = parts.pop("resid_pre") + parts.pop("attn_out")
        return torch.where(tokens(x)[..., None], _fitting(source, x) - middle, x)

    yield EditStep("resid_pre", block, partial(keep, "resid_pre"), last=True, replaces=True)
    yield EditStep("attn_out", block, partial(keep, "attn_out"), last=True, replaces=True)
    yield EditStep("mlp_out", block, replace)


def _patched(tokens: TokenSelector, source: Tensor, x: Tensor, _: slice) -> Tensor:
    return torch.where(tokens(x)[..., None], _fitting(source, x), x)


def _patched_columns(columns: Tensor, tokens: TokenSelector, source: Tensor, x: Tensor, part: slice) -> Tensor:
    return replace_columns(columns, tokens, _fitting(source, x)[..., columns.to(source.device)], x, part)


def _fitting(source: Tensor, x: Tensor) -> Tensor:
    """The source's activation; raises ClasslensError for another number of images or tokens than run."""
    if len(source) not in (1, len(x)) or source.shape[1] != x.shape[1]:
        raise ClasslensError(
            f"the source of a patch has {len(source)} images of {source.shape[1]} tokens, but {len(x)} of {x.shape[1]} "
            "run at once: give one image, or as many as run, of the same size"
        )
    return source
