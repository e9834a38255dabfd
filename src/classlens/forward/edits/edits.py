"""Edits of a forward pass: who attends to whom, heads, neurons and sublayers ablated, activations patched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor

from classlens.errors import ClasslensError, suggestion
from classlens.forward.edits.pooling import pooling_kept
from classlens.forward.edits.selection import (
    Blocks,
    Group,
    TokenGroup,
    block_indices,
    head_indices,
    token_selector,
    unit_indices,
)
from classlens.forward.hooks import Change, evaluating, replacing, watching
from classlens.models.view import ModelView

Replacement = Literal["zero", "mean"] | Tensor


@dataclass(frozen=True, eq=False)
class Step:
    """One change at one point of one block. First ones come before all others there, late ones after."""

    point: str
    block: int
    change: Change
    first: bool = False
    late: bool = False


class Edit(Protocol):
    """What ``Lens.edit`` takes; adding one is adding a class here."""

    def steps(self, view: ModelView) -> Iterator[Step]:
        """The changes that make the edit; raises ClasslensError for what the model does not have."""
        ...


@contextmanager
def editing(view: ModelView, edits: Sequence[Edit]) -> Iterator[None]:
    """Run everything in the body edited; afterwards the model is as it was (law 4)."""
    with ExitStack() as stack:
        steps = [step for edit in edits for step in edit.steps(view)]
        points = {step.point for step in steps}
        if "attention" in points:
            stack.enter_context(view.unfused())
        if points & {"attn_coefficients", "attn_joined"}:
            stack.enter_context(view.exposing_coefficients())
        for step in sorted(steps, key=lambda step: step.late):
            point = view.blocks[step.block].points.get(step.point)
            if point is None or not point.editable:
                raise ClasslensError(
                    f"the blocks of model {view.name!r} {'do not show' if point is None else 'only show'} "
                    f"{step.point}, so it cannot be edited there: edit another point, or describe the model with it"
                )
            stack.enter_context(replacing(point, step.change, first=step.first))
        for edit in edits:
            if isinstance(edit, KeepTokens):
                stack.enter_context(pooling_kept(view, token_selector(view, edit.mask)))
        yield


@dataclass(frozen=True, eq=False)
class CutAttention:
    """Some tokens do not see some others: the attention weights from ``queries`` to ``keys`` are 0.

        with lens.edit(CutAttention(queries="image", keys="cls", renormalize=True)):
            lens.facts(images, "resid_post", "cat")

    Tokens are ``"cls"``, ``"image"``, ``"prefix"``, ``"all"``, another prefix token's name, indices, a slice or a bool
    mask ``[token]`` or ``[image, token]``. With ``renormalize`` what is left of a row is scaled to sum to one; a row of
    which nothing is left stays 0.
    """

    queries: TokenGroup
    keys: TokenGroup
    renormalize: bool = False
    blocks: Blocks = None
    heads: Sequence[int] | None = None

    def steps(self, view: ModelView) -> Iterator[Step]:
        queries, keys = token_selector(view, self.queries), token_selector(view, self.keys)

        def cut(weights: Tensor) -> Tensor:
            gone = queries(weights)[:, None, :, None] & keys(weights)[:, None, None, :]
            left = weights.masked_fill(gone, 0.0)
            return _renormalized(left) if self.renormalize else left

        return _attention_steps(view, self.blocks, self.heads, cut)


def NoCls(renormalize: bool = False, blocks: Blocks = None, heads: Sequence[int] | None = None) -> CutAttention:
    """Image tokens do not see ``[CLS]`` (design, section 3); rows are not renormalized unless asked, as published."""
    return CutAttention("image", "cls", renormalize, blocks, heads)


@dataclass(frozen=True, eq=False)
class SelfOnly:
    """Every image token attends to itself alone: its row of attention weights is one-hot; prefix tokens are untouched.

    with lens.edit(SelfOnly(blocks=[10, 11])):
        lens.trace(images)
    """

    blocks: Blocks = None
    heads: Sequence[int] | None = None

    def steps(self, view: ModelView) -> Iterator[Step]:
        image = token_selector(view, "image")

        def alone(weights: Tensor) -> Tensor:
            own = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
            return torch.where(image(weights)[:, None, :, None], own, weights)

        return _attention_steps(view, self.blocks, self.heads, alone)


@dataclass(frozen=True, eq=False)
class KeepTokens:
    """Tokens are dropped after position embeddings, all but those of ``mask`` (``[token]`` or ``[image, token]``).

        with lens.edit(KeepTokens(mask)):
            logits = lens.view.run(pixels)

    Images of a batch may keep different numbers of tokens, and every model can do it, also one whose attention knows
    positions: removed tokens get no weight from any other, the rows of the others sum to one again, and the head pools
    the kept ones alone. To the kept tokens and to the logits that is the same as dropping the others; the hidden states
    of removed tokens are still there and mean nothing. It acts before every other edit, as dropping would, and of
    several, tokens are kept that all of them keep. Where the head finds none of its tokens, logits are NaN.
    """

    mask: Tensor

    def steps(self, view: ModelView) -> Iterator[Step]:
        kind = getattr(self.mask, "dtype", type(self.mask).__name__)
        if kind != torch.bool:
            raise ClasslensError(f"tokens to keep were given as {kind}: give a bool mask, [token] or [image, token]")
        keeps = token_selector(view, self.mask)

        def keep(weights: Tensor) -> Tensor:
            return _renormalized(weights.masked_fill(~keeps(weights)[:, None, None, :], 0.0))

        return (replace(step, first=True) for step in _attention_steps(view, None, None, keep))


@dataclass(frozen=True, eq=False)
class AblateHeads:
    """The outputs of some heads are replaced, before an inner norm and the output projection.

        with lens.edit(AblateHeads([0, 3], blocks=[5], to="mean")):
            lens.facts(images, "resid_post", "cat")

    ``to``: ``"zero"``; ``"mean"``, over the images of the batch at the same token; or a tensor that fits
    ``[image, token, channel]`` of the chosen heads, joined.
    """

    heads: Sequence[int]
    blocks: Blocks = None
    tokens: TokenGroup = "all"
    to: Replacement = "zero"

    def steps(self, view: ModelView) -> Iterator[Step]:
        chosen, tokens = head_indices(view, self.heads), token_selector(view, self.tokens)
        for block in block_indices(view, self.blocks):
            point, channels = _joined_heads(view, block)
            yield Step(point, block, partial(_put_columns, _columns(chosen, channels), tokens, self.to))


@dataclass(frozen=True, eq=False)
class AblateNeurons:
    """The coefficients of some memories are replaced: hidden units of the MLP, or channels of attention.

        with lens.edit(AblateNeurons([17, 2041], blocks=[10])):
            lens.facts(images, "resid_post", "cat")

    ``to`` as for ``AblateHeads``, a tensor fitting ``[image, token, unit]`` of the chosen ones.
    """

    units: Sequence[int]
    blocks: Blocks = None
    tokens: TokenGroup = "all"
    to: Replacement = "zero"
    sublayer: Literal["attn", "mlp"] = "mlp"

    def steps(self, view: ModelView) -> Iterator[Step]:
        tokens = token_selector(view, self.tokens)
        for block in block_indices(view, self.blocks):
            columns = torch.tensor(unit_indices(view, block, self.sublayer, self.units))
            yield Step(f"{self.sublayer}_coefficients", block, partial(_put_columns, columns, tokens, self.to))


@dataclass(frozen=True, eq=False)
class AblateSublayer:
    """What a sublayer adds to the residual stream is replaced.

        with lens.edit(AblateSublayer("mlp", blocks=[11])):
            lens.trace(images)

    ``to``: ``"zero"``; ``"mean"``, over the images of the batch at the same token; or a tensor that fits
    ``[image, token, width]``.
    """

    sublayer: Literal["attn", "mlp"]
    blocks: Blocks = None
    tokens: TokenGroup = "all"
    to: Replacement = "zero"

    def steps(self, view: ModelView) -> Iterator[Step]:
        if self.sublayer not in ("attn", "mlp"):
            raise ClasslensError(f"sublayer {self.sublayer!r} is not known: give attn or mlp")
        tokens = token_selector(view, self.tokens)

        def put(x: Tensor, _: slice) -> Tensor:
            return torch.where(tokens(x)[..., None], _instead(self.to, x), x)

        for block in block_indices(view, self.blocks):
            yield Step(f"{self.sublayer}_out", block, put)


PATCHED = ("embed", "resid_pre", "attn_out", "mlp_out", "resid_post", "heads")


@dataclass(frozen=True, eq=False)
class Patch:
    """Activation patching: what the run over other images has at a place takes the place of the own.

        with lens.edit(Patch("resid_post", source=other_pixels, blocks=[6], tokens="image")):
            logits = lens.view.run(pixels)

    ``source``: pixels of one image, or of as many as will run; it is run once, unedited by this edit, on entering (by
    the edits of a context around this one it is).
    ``site``: ``embed``, ``resid_pre``, ``attn_out``, ``mlp_out``, ``resid_post``, or ``heads`` with ``heads``. A
    patched residual stream counts as added by the MLP before it, so that law 1 goes on to hold; edits of the same block
    belong in the same ``edit(...)``, as those of a context within this one act on what was patched.
    """

    site: str
    source: Tensor = field(repr=False)
    blocks: Blocks = None
    tokens: TokenGroup = "all"
    heads: Sequence[int] | None = None

    def steps(self, view: ModelView) -> Iterator[Step]:
        if self.site not in PATCHED:
            raise ClasslensError(
                f"site {self.site!r} cannot be patched{suggestion(str(self.site), PATCHED)}; "
                f"give one of {', '.join(PATCHED)}"
            )
        if (self.site == "heads") != (self.heads is not None):
            raise ClasslensError("heads= goes with site 'heads' of a patch, which needs it: give both or neither")
        tokens = token_selector(view, self.tokens)
        columns: dict[int, Tensor] = {}
        places: list[tuple[str, int]] = []
        for block in [0] if self.site == "embed" else block_indices(view, self.blocks):
            if self.site == "heads":
                point, channels = _joined_heads(view, block)
                columns[block] = _columns(head_indices(view, self.heads), channels)
                places.append((point, block))
            elif self.site in ("embed", "resid_pre"):  # what enters a block is what the one before gave
                places.append(("resid_post", block - 1) if block > 0 else ("resid_pre", 0))
            else:
                places.append((self.site, block))
        for (point, block), theirs in self._theirs(view, places).items():
            if point == "resid_post":
                yield from _stream(block, tokens, theirs)
            elif block in columns:
                yield Step(point, block, partial(_patched_columns, columns[block], tokens, theirs))
            else:
                yield Step(point, block, partial(_patched, tokens, theirs))

    def _theirs(self, view: ModelView, places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Tensor]:
        """What passes at these places while the source runs."""
        if self.source.ndim != 4 or self.source.shape[1] != view.channels or not len(self.source):
            raise ClasslensError(
                f"a tensor of shape {list(self.source.shape)} was given as the source of a patch: give pixels "
                f"[image, {view.channels}, height, width]"
            )
        view.tokens((self.source.shape[2], self.source.shape[3]))
        found: dict[tuple[str, int], Tensor] = {}

        def receive(point: str, block: int, x: Tensor) -> None:
            if (point, block) in places:
                found[point, block] = x

        receivers = {point: partial(receive, point) for point, _ in places}
        with evaluating(view.module), view.exposing_coefficients(), watching(view, receivers):
            view.run(self.source.to(view.device, view.dtype))
        return found


def _stream(block: int, tokens: Group, theirs: Tensor) -> Iterator[Step]:
    """The output of a block, changed by way of what its MLP adds."""
    parts: dict[str, Tensor] = {}

    def keep(name: str, x: Tensor, _: slice) -> Tensor:
        parts[name] = x
        return x

    def put(x: Tensor, _: slice) -> Tensor:
        middle = parts.pop("resid_pre") + parts.pop("attn_out")
        return torch.where(tokens(x)[..., None], _fitting(theirs, x) - middle, x)

    yield Step("resid_pre", block, partial(keep, "resid_pre"), late=True)
    yield Step("attn_out", block, partial(keep, "attn_out"), late=True)
    yield Step("mlp_out", block, put)


def _attention_steps(
    view: ModelView, blocks: Blocks, heads: Sequence[int] | None, change: Callable[[Tensor], Tensor]
) -> Iterator[Step]:
    """The same change of the attention weights of some heads in some blocks."""
    chosen = torch.zeros(view.blocks[0].heads, dtype=torch.bool)
    chosen[head_indices(view, heads)] = True

    def some(weights: Tensor, part: slice) -> Tensor:
        if bool(chosen.all()):
            return change(weights)
        here = chosen[part].to(weights.device)[:, None, None]
        return torch.where(here, change(weights), weights)

    for block in block_indices(view, blocks):
        yield Step("attention", block, some)


def _renormalized(weights: Tensor) -> Tensor:
    total = weights.sum(dim=-1, keepdim=True)
    return torch.where(total == 0, weights, weights / total)


def _joined_heads(view: ModelView, block: int) -> tuple[str, int]:
    """The point at which the outputs of all heads pass, joined, before an inner norm; and the channels of a head."""
    seen = view.blocks[block]
    point = "attn_joined" if "attn_joined" in seen.points else "attn_coefficients"
    return point, seen.attn.weight.shape[1] // seen.heads


def _columns(heads: Sequence[int], channels: int) -> Tensor:
    """Where the channels of some heads stand, all heads joined."""
    return torch.tensor([head * channels + each for head in heads for each in range(channels)])


def _put_columns(columns: Tensor, tokens: Group, to: Replacement, x: Tensor, part: slice) -> Tensor:
    """Some columns of some tokens replaced; ``x`` holds the columns ``part`` of all."""
    start, stop = part.start or 0, x.shape[-1] if part.stop is None else part.stop
    here = (columns >= start) & (columns < stop)
    own = (columns[here] - start).to(x.device)
    if isinstance(to, Tensor) and to.ndim and to.shape[-1] == len(columns):
        to = to[..., here.to(to.device)]
    chosen = x[..., own]
    x = x.clone()
    x[..., own] = torch.where(tokens(x)[..., None], _instead(to, chosen), chosen)
    return x


def _patched(tokens: Group, theirs: Tensor, x: Tensor, _: slice) -> Tensor:
    return torch.where(tokens(x)[..., None], _fitting(theirs, x), x)


def _patched_columns(columns: Tensor, tokens: Group, theirs: Tensor, x: Tensor, part: slice) -> Tensor:
    return _put_columns(columns, tokens, _fitting(theirs, x)[..., columns.to(theirs.device)], x, part)


def _fitting(theirs: Tensor, x: Tensor) -> Tensor:
    """The source's tensor, which must be of one image or of as many as run, and of as many tokens."""
    if len(theirs) not in (1, len(x)) or theirs.shape[1] != x.shape[1]:
        raise ClasslensError(
            f"the source of a patch has {len(theirs)} images of {theirs.shape[1]} tokens, but {len(x)} of {x.shape[1]} "
            "run at once: give one image, or as many as run, of the same size"
        )
    return theirs


def _instead(to: Replacement, x: Tensor) -> Tensor:
    """What takes the place of ``x`` (``[image, token, channel]``)."""
    if isinstance(to, Tensor):
        try:
            return to.to(x.device, x.dtype).expand_as(x)
        except RuntimeError:
            raise ClasslensError(
                f"a tensor of shape {list(to.shape)} was given to take the place of {list(x.shape)}: give one that "
                "fits [image, token, channel]"
            ) from None
    if to == "zero":
        return torch.zeros_like(x)
    if to != "mean":
        raise ClasslensError(f"to={to!r} is not known: give zero, mean or a tensor")
    if len(x) < 2:
        raise ClasslensError("to='mean' is the mean over the images of a batch, and this one has 1: give a tensor")
    return x.mean(dim=0, keepdim=True).expand_as(x)
