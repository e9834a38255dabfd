"""What needs neither attention nor gradients: the rank of the class at each token, and chance."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.arguments import whole_number
from classlens.core.scores import facts, identifiability
from classlens.forward.recording import Recording

# What torch and NumPy both take.
_LARGEST_SEED = 2**63 - 1
# Logits held at once.
_SCRATCH = 2**22


def class_rank(recording: Recording, target: Int[Tensor, " image"]) -> Float[Tensor, "image block token"]:
    """Class identifiability of each image token after each block: ``1 - rank / C`` of ``resid_post``, in (0, 1].

    ``trace.explain("cat", method="class_rank").sum("block")``. Source: Vilas, Schaumlöffel and
    Roig, *Analyzing Vision Transformers for Image Classification in Class Embedding Space*, NeurIPS 2023, section 4.
    """
    view, tokens = recording.view, recording.tokens
    result = torch.empty(len(recording), len(view.blocks), tokens.count, dtype=recording.dtype)
    step = max(1, _SCRATCH // (tokens.count * view.num_classes))
    for start in range(0, len(recording), step):
        part = slice(start, start + step)
        for block, states in recording.walk("resid_post", part):
            for space, group in view.spaces(tokens.count):
                chosen = states[:, group]
                rows = target[part].to(chosen.device).repeat_interleave(chosen.shape[1])
                read = view.space_at(space, "resid_post", block)
                rank = facts(read.project(chosen).flatten(0, 1), rows).rank
                share = identifiability(rank.view(chosen.shape[:2]).to(recording.dtype), view.num_classes)
                result[part, block, group] = share.cpu()
    return result[:, :, tokens.image]


def random(recording: Recording, target: Int[Tensor, " image"], *, seed: int = 0) -> Float[Tensor, "image token"]:
    """One random order of the image tokens, the same for all images: their places in it, divided by their number.

    ``trace.explain(method="random", seed=3)``: the baseline of every measure of faithfulness.
    """
    seed = whole_number("seed", seed, 0, _LARGEST_SEED)
    grid = recording.tokens.image
    order = torch.randperm(grid.stop - grid.start, generator=torch.Generator().manual_seed(seed))
    return (order.to(recording.dtype) / len(order)).expand(len(recording), -1).clone()
