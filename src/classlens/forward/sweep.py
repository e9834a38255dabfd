"""Passes that differ in one part each, which has the activation of another image; run as few batches as possible."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from classlens.forward.active_edits import active_edits
from classlens.forward.edits.edit import EXPOSED_POINTS, editable_point, editing
from classlens.forward.edits.keep_tokens import KeepTokens
from classlens.forward.hooks import replacing
from classlens.forward.isolation import exclusive
from classlens.forward.run import run
from classlens.models.view import ModelView


class SweepReceiver(ABC):
    """Takes logits while a sweep runs."""

    @abstractmethod
    def unpatched(self, images: slice, base: Tensor, source: Tensor | None) -> None:
        """Logits of some images and of their sources, if these are images, as they are; patched ones follow."""

    @abstractmethod
    def patched(self, images: Sequence[int], variants: Sequence[int], logits: Tensor) -> None:
        """Logits of some images, each with one of the variants patched."""


class Part(NamedTuple):
    """A part of what passes at a point of a block: some tokens, and some columns (channels or hidden units)."""

    point: str
    block: int
    tokens: slice = slice(None)
    columns: slice = slice(None)

    def of(self, view: ModelView) -> Part:
        """The same part where a pass first reaches it: the output of a block is the input of the next one."""
        if self.point == "resid_post" and self.block + 1 < len(view.blocks):
            return Part("resid_pre", self.block + 1, self.tokens, self.columns)
        return self


Variant = tuple[Part, ...]
"""Parts that are patched together."""
References = Mapping[tuple[str, int], Float[Tensor, "token column"]]
"""By point and block, as ``Part.of`` gives them: what takes the place of the activations of every image."""


class Removal(NamedTuple):
    """Tokens that one of the two runs lacks; parts are patched at the tokens that both have."""

    keep: Bool[Tensor, "image token"]
    run: Literal["base", "source"]

    def during(self, run: str, view: ModelView, images: slice) -> AbstractContextManager[None]:
        """Removes the tokens of some images where this is the run that lacks them."""
        return editing(view, [KeepTokens(self.keep[images])]) if run == self.run else nullcontext()


class _Patched(NamedTuple):
    """A row of a batch in which an image runs with a part of its source."""

    row: int
    image: int
    part: Part


@dataclass(frozen=True)
class _Pass:
    """One batch: the images that enter, the rows that run on from before a block, and what is patched where."""

    images: list[int]
    rows: dict[int, list[int]]
    patched: dict[tuple[str, int], list[_Patched]]
    pairs: list[tuple[int, int]]
    """Image and number of the variant, for each row of the logits."""


def sweep(
    view: ModelView,
    base: Float[Tensor, "image channel height width"],
    source: Float[Tensor, "image channel height width"] | References,
    variants: Sequence[Variant],
    receiver: SweepReceiver,
    *,
    batch_size: int,
    removal: Removal | None = None,
) -> None:
    """Run every image of ``base`` with the parts of each variant in turn taken from its image of ``source``.

    All variants of an image share its pass up to the first block that they change: there, rows branch off. A batch
    never has more than ``batch_size`` rows. Where rows cannot branch off between blocks, every variant is a whole pass;
    so it is with edits, which may depend on the images that run together. With ``removal``, one of the two runs lacks
    tokens.
    """
    variants = [tuple(part.of(view) for part in variant) for variant in variants]
    parts = [part for variant in variants for part in variant]
    for part in parts:
        editable_point(view, part.point, part.block)
    with exclusive(view.module):
        branches: bool | None = None
        for start in range(0, len(base), batch_size):
            images = slice(start, min(start + batch_size, len(base)))
            activations: dict[tuple[str, int], Tensor] = {}
            theirs = None
            if isinstance(source, Tensor):
                with nullcontext() if removal is None else removal.during("source", view, images):
                    theirs = record_parts(view, source[images], parts, activations)
            else:
                count = images.stop - start
                activations |= {point: value.expand(count, *value.shape) for point, value in source.items()}
            with nullcontext() if removal is None else removal.during("base", view, images):
                logits = run(view, base[images])
                receiver.unpatched(images, logits, theirs)
                if branches is None:
                    branches = batch_size > 1 and _rows_branch(view, base[:1], logits[:1])
                passes = _branching(variants, len(logits), batch_size) if branches else _whole(variants, len(logits))
                kept = None if removal is None else removal.keep[images]
                for each in passes:
                    patched = _run(view, base[images], activations, each, kept)
                    receiver.patched(
                        [start + image for image, _ in each.pairs], [number for _, number in each.pairs], patched
                    )


def record_parts(
    view: ModelView, pixels: Tensor, parts: Sequence[Part], activations: dict[tuple[str, int], Tensor]
) -> Tensor:
    """Logits of a pass; keeps what passes where a part is."""
    wanted = {(part.point, part.block) for part in parts}
    names = {point for point, _ in wanted}

    def keep(point: str, block: int, x: Tensor) -> None:
        if (point, block) in wanted:
            activations[point, block] = x

    receivers = {point: partial(keep, point) for point in names}
    return run(view, pixels, receivers, exposing_coefficients=not names.isdisjoint(EXPOSED_POINTS))


def _whole(variants: Sequence[Variant], images: int) -> Iterator[_Pass]:
    """For each variant one pass of all images, as they would run without it."""
    for number, variant in enumerate(variants):
        pairs = [(image, number) for image in range(images)]
        patched: dict[tuple[str, int], list[_Patched]] = defaultdict(list)
        for part in variant:
            patched[part.point, part.block] += [_Patched(image, image, part) for image in range(images)]
        yield _Pass(list(range(images)), {}, patched, pairs)


def _branching(variants: Sequence[Variant], images: int, batch_size: int) -> Iterator[_Pass]:
    """Batches of at most ``batch_size`` patched rows, image by image in the order of blocks."""
    order = sorted(range(len(variants)), key=lambda number: _first_block(variants[number]))
    pairs = [(image, number) for image in range(images) for number in order]
    for start in range(0, len(pairs), batch_size):
        yield _branching_pass(variants, pairs[start : start + batch_size])


def _first_block(variant: Variant) -> int:
    return min((part.block for part in variant), default=0)


def _branching_pass(variants: Sequence[Variant], pairs: Sequence[tuple[int, int]]) -> _Pass:
    """One batch. An image's own row runs until its last variant has branched off, so rows never outnumber variants."""
    last = {image: _first_block(variants[number]) for image, number in pairs}
    starting: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for image, number in pairs:
        starting[_first_block(variants[number])].append((image, number))
    running: list[tuple[int, int | None]] = [(image, None) for image in last]
    rows: dict[int, list[int]] = {}
    patched: dict[tuple[str, int], list[_Patched]] = defaultdict(list)
    for block in sorted({*starting, *(part.block for _, number in pairs for part in variants[number])}):
        if block in starting:
            own = {image: row for row, (image, number) in enumerate(running) if number is None}
            kept = [row for row, (image, number) in enumerate(running) if number is not None or last[image] > block]
            rows[block] = kept + [own[image] for image, _ in starting[block]]
            running = [running[row] for row in kept] + list(starting[block])
        for row, (image, variant) in enumerate(running):
            for part in () if variant is None else variants[variant]:
                if part.block == block:
                    patched[part.point, block].append(_Patched(row, image, part))
    return _Pass(list(last), rows, patched, [(image, number) for image, number in running if number is not None])


def _run(
    view: ModelView,
    pixels: Tensor,
    activations: dict[tuple[str, int], Tensor],
    each: _Pass,
    kept: Bool[Tensor, "image token"] | None = None,
) -> Tensor:
    """The logits of one batch; ``kept`` are the tokens that both runs have."""
    points = dict.fromkeys([*(("resid_pre", block) for block in each.rows), *each.patched])
    with ExitStack() as stack:
        exposed = not {point for point, _ in points}.isdisjoint(EXPOSED_POINTS)
        if exposed:
            stack.enter_context(view.exposing_coefficients())
        for point, block in points:
            change = partial(
                _changed,
                each.rows.get(block) if point == "resid_pre" else None,
                each.patched.get((point, block), []),
                activations.get((point, block)),
                kept,
            )
            # The input of a block is the sum of all before it: edits of the block see it as it is then.
            first = point == "resid_pre" and (block > 0 or block in each.rows)
            stack.enter_context(replacing(view.blocks[block].points[point], change, first=first))
        return run(view, pixels[each.images], exposing_coefficients=exposed)


def _changed(
    rows: list[int] | None,
    patched: Sequence[_Patched],
    source: Tensor | None,
    kept: Bool[Tensor, "image token"] | None,
    x: Tensor,
    held: slice,
) -> Tensor:
    """Rows that branch off, and parts of the source; ``x`` holds the columns ``held`` of all."""
    x = x.clone() if rows is None else x[rows]
    for row, image, part in patched:
        assert source is not None, "the source is recorded at every point of a part"
        start = held.start or 0
        low, high, _ = part.columns.indices(source.shape[-1])
        low, high = max(low, start), min(high, start + x.shape[-1])
        if low < high:
            taken = source[image, part.tokens, low:high]
            own = x[row, part.tokens, low - start : high - start]
            x[row, part.tokens, low - start : high - start] = (
                taken if kept is None else torch.where(kept[image, part.tokens, None].to(x.device), taken, own)
            )
    return x


def _rows_branch(view: ModelView, pixels: Tensor, expected: Tensor) -> bool:
    """Whether rows may branch off before every block: measured with one image, in two rows at every other block."""
    if active_edits(view.module).edits or not all(block.points["resid_pre"].editable for block in view.blocks):
        return False
    rows = {block: [0, 0] if block % 2 else [0] for block in range(len(view.blocks))}
    try:
        logits = _run(view, pixels, {}, _Pass([0], rows, {}, []))
    except Exception:  # a model may fail in any way where the number of rows changes
        return False
    tolerance = min(2.0**10 * torch.finfo(view.dtype).eps, 0.05) * max(1.0, float(expected.abs().max()))
    same = logits.shape[1:] == expected.shape[1:] and len(logits) == len(rows[len(rows) - 1])
    return same and bool((logits - expected).abs().max() <= tolerance)
