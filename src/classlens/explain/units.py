"""Contributions of MLP units and attention channels to a class logit, with the scale of every norm held (law 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from classlens.core.attention import Output
from classlens.core.space import ClassOrWeights
from classlens.explain.attribution import LogitSum
from classlens.forward.agreement import Sublayer
from classlens.forward.recording import Recording


class UnitContributions:
    """The contributions of a sublayer's units to one or several logits of some recorded images.

    ``targets`` are as ``attribute`` takes them, of these images.
    """

    def __init__(self, recording: Recording, targets: Sequence[ClassOrWeights], images: slice | None = None) -> None:
        self._recording = recording
        self._images = slice(0, len(recording)) if images is None else images
        self._sums = [LogitSum.of(recording, target, self._images) for target in targets]

    def of(
        self, sublayer: Sublayer, block: int, coefficients: Float[Tensor, "image token unit"]
    ) -> list[tuple[Float[Tensor, "image unit"], Float[Tensor, " image"]]]:
        """The units' contributions and the bias for each target; see ``unit_contributions``."""
        return [self._of_target(each, sublayer, block, coefficients) for each in self._sums]

    def of_directions(
        self, directions: Float[Tensor, "feature width"], coefficients: Float[Tensor, "image token feature"]
    ) -> list[Float[Tensor, "image feature"]]:
        """The contributions of directions of the residual stream, or of what is added to it, for each target."""
        output = Output(directions.T)
        return [
            torch.stack(
                [
                    functional.through(output, None).function.by_channel(coefficients[:, tokens])
                    for tokens, functional in parts.functionals
                ]
            ).sum(dim=0)
            for parts in self._sums
        ]

    def added(self, sublayer: Sublayer, block: int) -> list[Float[Tensor, " image"]]:
        """Contribution of the whole sublayer, as it was recorded, to the logit of each target."""
        output = self._recording.activation(f"{sublayer}_out", block)[self._images]
        return [
            torch.stack([functional(output[:, tokens]) for tokens, functional in parts.functionals]).sum(dim=0)
            for parts in self._sums
        ]

    def _of_target(
        self, parts: LogitSum, sublayer: Sublayer, block: int, coefficients: Float[Tensor, "image token unit"]
    ) -> tuple[Float[Tensor, "image unit"], Float[Tensor, " image"]]:
        units: Tensor = torch.zeros((), device=parts.bias.device)
        bias = torch.zeros_like(parts.bias)
        for tokens, functional in parts.functionals:
            share = parts.share(functional, sublayer, block, tokens, coefficients)
            before_norm = self._recording.before_norm(f"{sublayer}_joined", block, self._images, tokens)
            passed = coefficients[:, tokens] if before_norm is None else before_norm
            units = units + share.function.by_channel(passed) + share.units
            bias = bias + share.bias + share.edit
        return units, bias


def unit_contributions(
    recording: Recording,
    target: ClassOrWeights,
    sublayer: Sublayer,
    block: int,
    coefficients: Float[Tensor, "image token unit"],
) -> tuple[Float[Tensor, "image unit"], Float[Tensor, " image"]]:
    """The exact contribution of each unit of a sublayer to a logit, and what comes from none of them.

    A unit is a hidden unit of the MLP, or a channel of the joined heads; before the norm in blocks with an inner norm.
    Its contribution is ``Σ_q w_q c[q] (W_out[:, unit] · d)``, with ``d`` and ``w`` as in ``logit_attribution`` and
    ``c`` its memory coefficient. ``coefficients`` are those of the first tokens, up to the last pooled one at least.
    Added to the contributions, the second tensor gives what the sublayer adds to the logit: it is that of biases, and
    of what an edit put in the place of the sublayer's output.
    """
    return UnitContributions(recording, [target]).of(sublayer, block, coefficients)[0]
