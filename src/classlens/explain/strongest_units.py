"""The units of a sublayer that contribute most to a logit, from one more pass that shows their coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.space import ClassOrWeights
from classlens.errors import ClasslensError
from classlens.explain.attribution import require_sum
from classlens.explain.batching import pass_groups
from classlens.explain.units import UnitContributions
from classlens.forward.agreement import Sublayer
from classlens.forward.recording import Recording
from classlens.forward.run import run

# Coefficients of one block, and contributions of all blocks, in a pass: 64 MiB each in float32.
_NUMBERS = 2**24


class StrongestUnits(NamedTuple):
    """The strongest units of some blocks, and what these blocks add; ``block`` counts among the chosen ones.

    Of each block, the contributions of its listed units, ``rest`` and ``bias`` add up to ``added``.
    """

    block: Int[Tensor, "image rank"]
    unit: Int[Tensor, "image rank"]
    contribution: Float[Tensor, "image rank"]
    coefficient: Float[Tensor, "image rank"]
    rest: Float[Tensor, "image block"]
    bias: Float[Tensor, "image block"]
    added: Float[Tensor, "image block"]


def strongest_units(
    recording: Recording, target: ClassOrWeights, sublayer: Sublayer, blocks: Sequence[int], top: int
) -> StrongestUnits:
    """The ``top`` units with the largest absolute contributions, all of a model that has fewer; ties by block and unit.

    ``coefficient`` is the mean over the tokens that the head pools. Raises ClasslensError where the pass is not that of
    the recording, and where units do not add up to what their sublayer adds.
    """
    point = f"{sublayer}_coefficients"
    missing = [block for block in blocks if point not in recording.view.blocks[block].points]
    if missing:
        raise ClasslensError(
            f"block {missing[0]} of model {recording.view.name!r} has no point {point!r}, at which its units pass: "
            "give its BlockView one"
        )
    recording.require_same_model()
    recording.require_same_edits()
    units = [getattr(recording.view.blocks[block], sublayer).weight.shape[1] for block in blocks]
    per_image = max(max(units) * recording.tokens.count, sum(units))
    groups = pass_groups(recording, min(recording.batch_size, max(1, _NUMBERS // per_image)))
    parts = [_of_group(recording, target, sublayer, blocks, images, top) for images in groups]
    return StrongestUnits(*(torch.cat(values).cpu() for values in zip(*parts, strict=True)))


def _of_group(
    recording: Recording, target: ClassOrWeights, sublayer: Sublayer, blocks: Sequence[int], images: slice, top: int
) -> StrongestUnits:
    contributions = UnitContributions(recording, [target[images]], images)
    ends = [readout.pooled.indices(recording.tokens.count)[1] for readout in recording.view.readouts]
    each: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def receive(block: int, x: Tensor) -> None:
        if block in blocks:
            coefficients = x[:, : max(ends)]
            ((contribution, bias),) = contributions.of(sublayer, block, coefficients)
            each[block] = contribution, bias, _pooled(recording, images, coefficients)

    receivers = {f"{sublayer}_coefficients": receive}
    logits = run(recording.view, recording.pixels[images], receivers, exposing_coefficients=True)
    recording.require_same_logits(logits, images)
    added = [contributions.added(sublayer, block)[0] for block in blocks]
    for block, total in zip(blocks, added, strict=True):
        _check_units(recording, sublayer, block, *each[block][:2], total)
    sizes = [each[block][0].shape[1] for block in blocks]
    joined = torch.cat([each[block][0] for block in blocks], dim=1)
    order = joined.abs().sort(dim=1, descending=True, stable=True).indices[:, :top]
    number = torch.repeat_interleave(torch.arange(len(blocks)), torch.tensor(sizes)).to(order.device)
    unit = torch.cat([torch.arange(size) for size in sizes]).to(order.device)
    coefficient = torch.cat([each[block][2] for block in blocks], dim=1).gather(1, order)
    listed = torch.zeros_like(joined, dtype=torch.bool).scatter(1, order, True)
    rest = torch.stack([part.sum(dim=1) for part in joined.masked_fill(listed, 0).split(sizes, dim=1)], dim=1)
    bias = torch.stack([each[block][1] for block in blocks], dim=1)
    total = torch.stack(added, dim=1)
    return StrongestUnits(number[order], unit[order], joined.gather(1, order), coefficient, rest, bias, total)


def _pooled(
    recording: Recording, images: slice, coefficients: Float[Tensor, "image token unit"]
) -> Float[Tensor, "image unit"]:
    """Mean coefficients of the tokens that the head pools, with their weights in it."""
    readouts, total = recording.view.readouts, torch.zeros((), device=coefficients.device)
    for readout in readouts:
        chosen = coefficients[:, readout.pooled].to(recording.dtype)
        weights = recording.query_weights(images, readout.pooled)
        total = total + readout.weight * (chosen if weights is None else chosen * weights[..., None]).mean(dim=1)
    return total / sum(readout.weight for readout in readouts)


def _check_units(
    recording: Recording,
    sublayer: Sublayer,
    block: int,
    contribution: Float[Tensor, "image unit"],
    bias: Float[Tensor, " image"],
    added: Float[Tensor, " image"],
) -> None:
    total, size = contribution.sum(dim=1) + bias, contribution.abs().sum(dim=1) + bias.abs()
    dtype = recording.activation(f"{sublayer}_out", block).dtype
    parts, name = ("hidden units", "MLP") if sublayer == "mlp" else ("channels", "attention")
    require_sum(recording.view, total, size, added, dtype, f"the {parts} of block {block}", name)
