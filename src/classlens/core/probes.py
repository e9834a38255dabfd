"""Linear probes: classifiers of token vectors that were trained beside the model, not by it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.maps import compute_dtype
from classlens.core.scores import Facts, facts

# Scores held at once while they are reduced: 16 MiB in float32.
_SCRATCH = 2**22


@dataclass(frozen=True, eq=False)
class LinearProbes:
    """Classifiers of the tokens at one site of one block: ``scores = token @ weight + bias``.

        probes = LinearProbes(weight, bias)         # [place, width, classes], [place, classes]
        scores = probes.project(tokens)             # [image, token, width] -> [image, token, classes]

    A place is a position in the sequence; a single one reads all ``tokens`` alike.
    """

    weight: Float[Tensor, "place width classes"]
    bias: Float[Tensor, "place classes"]
    tokens: slice = field(default_factory=lambda: slice(None))
    """The tokens that are read, of all that pass."""

    def project(self, tokens: Float[Tensor, "image token width"]) -> Float[Tensor, "image token classes"]:
        """Scores of each class at each token that is read."""
        read = tokens[:, self.tokens]
        parts = [scores for _, scores in self._scores(read)]
        return torch.cat(parts, dim=1) if parts else read.new_empty(*read.shape[:2], self.bias.shape[1])

    def facts(self, tokens: Float[Tensor, "image token width"], target: Int[Tensor, " image"]) -> Facts:
        """Rank and score of the class of interest and the top-1 class of each token that is read, image by image."""
        read = tokens[:, self.tokens]
        found = []
        for some, scores in self._scores(read):
            count = some.stop - some.start
            one = facts(scores.flatten(0, 1), target.to(scores.device).repeat_interleave(count))
            found.append([value.view(len(read), count) for value in one])
        return Facts(*(torch.cat(parts, dim=1).flatten() for parts in zip(*found, strict=True)))

    def _scores(self, read: Float[Tensor, "image token width"]) -> Iterator[tuple[slice, Tensor]]:
        """Some tokens at once."""
        images, count = read.shape[:2]
        dtype = compute_dtype(read.dtype)
        step = max(1, _SCRATCH // (max(1, images) * self.bias.shape[1]))
        for start in range(0, count, step):
            some = slice(start, min(start + step, count))
            places = slice(0, 1) if len(self.weight) == 1 else some
            weight, bias = (part[places].to(read.device, dtype) for part in (self.weight, self.bias))
            if len(weight) == 1:
                yield some, read[:, some].to(dtype) @ weight[0] + bias[0]
            else:
                x = read[:, some].transpose(0, 1).to(dtype)
                yield some, torch.baddbmm(bias[:, None], x, weight).transpose(0, 1)
