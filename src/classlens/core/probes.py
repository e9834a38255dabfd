"""Linear probes: classifiers of token vectors that are trained separately from the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.scores import Facts, facts
from classlens.core.steps import compute_dtype

# Scores held at once while they are reduced: 16 MiB in float32.
_SCRATCH = 2**22


@dataclass(frozen=True, eq=False)
class LinearProbes:
    """Classifiers of the tokens at one site of one block, ``scores = token @ weight + bias``.

    One classifier for each position in the sequence, or a single one for all ``tokens``.

    Examples:
        >>> probes = LinearProbes(weight=torch.ones(1, 4, 3), bias=torch.zeros(1, 3))
        >>> probes.project(torch.ones(2, 5, 4)).shape
        torch.Size([2, 5, 3])
    """

    weight: Float[Tensor, "position width classes"]
    bias: Float[Tensor, "position classes"]
    tokens: slice = field(default_factory=lambda: slice(None))
    """The tokens to project, of all tokens of the sequence."""

    def project(self, tokens: Float[Tensor, "image token width"]) -> Float[Tensor, "image probed classes"]:
        """Scores of each class at each token of ``self.tokens``."""
        probed = tokens[:, self.tokens]
        parts = [scores for _, scores in self._scores(probed)]
        return torch.cat(parts, dim=1) if parts else probed.new_empty(*probed.shape[:2], self.bias.shape[1])

    def facts(self, tokens: Float[Tensor, "image token width"], target: Int[Tensor, " image"]) -> Facts:
        """Rank and score of the class of interest and top-1 class at each token of ``self.tokens``, image by image."""
        probed = tokens[:, self.tokens]
        chunks = []
        for span, scores in self._scores(probed):
            count = span.stop - span.start
            chunk = facts(scores.flatten(0, 1), target.to(scores.device).repeat_interleave(count))
            chunks.append([value.view(len(probed), count) for value in chunk])
        return Facts(*(torch.cat(parts, dim=1).flatten() for parts in zip(*chunks, strict=True)))

    def _scores(self, probed: Float[Tensor, "image probed width"]) -> Iterator[tuple[slice, Tensor]]:
        """Scores chunk by chunk, each with its span of tokens."""
        images, count = probed.shape[:2]
        dtype = compute_dtype(probed.dtype)
        step = max(1, _SCRATCH // (max(1, images) * self.bias.shape[1]))
        for start in range(0, count, step):
            span = slice(start, min(start + step, count))
            positions = slice(0, 1) if len(self.weight) == 1 else span
            weight, bias = (part[positions].to(probed.device, dtype) for part in (self.weight, self.bias))
            if len(weight) == 1:
                yield span, probed[:, span].to(dtype) @ weight[0] + bias[0]
            else:
                x = probed[:, span].transpose(0, 1).to(dtype)
                yield span, torch.baddbmm(bias[:, None], x, weight).transpose(0, 1)
