"""Class rank: where the class stands among all classes at each token."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.scores import facts, identifiability
from classlens.explain.class_logits import token_logits
from classlens.explain.method import Method
from classlens.forward.recording import Recording


def class_rank(
    recording: Recording, target: Int[Tensor, " image"], *, against: Int[Tensor, " image"] | None = None
) -> Float[Tensor, "image block token"]:
    """Class identifiability of each image token after each block: ``1 - rank / C`` of ``resid_post``, in (0, 1].

    With ``against``, less the identifiability of that class, in (-1, 1).

    Source: Vilas, Schaumlöffel and Roig, *Analyzing Vision Transformers for Image Classification in Class Embedding
    Space*, NeurIPS 2023, section 4.
    """
    recording.view.require_exclusive("a rank", "choose another method")
    tokens = recording.tokens
    result = torch.empty(len(recording), len(recording.view.blocks), tokens.count, dtype=recording.dtype)
    for images, block, group, logits in token_logits(recording, "resid_post"):
        rival = 0 if against is None else _identifiability(logits.clone(), against[images])
        result[images, block, group] = (_identifiability(logits, target[images]) - rival).to(result)
    return result[:, :, tokens.image]


def _identifiability(
    logits: Float[Tensor, "image token category"], target: Int[Tensor, " image"]
) -> Float[Tensor, "image token"]:
    """Overwrites ``logits``."""
    rows = target.to(logits.device).repeat_interleave(logits.shape[1])
    ranks = facts(logits.flatten(0, 1), rows).rank.view(logits.shape[:2])
    return identifiability(ranks.to(logits.dtype), logits.shape[2])


CLASS_RANK = Method(
    class_rank,
    ("image", "block", "token"),
    label="class rank",
    about="Class identifiability of each token after each block, `1 - rank / C`.",
    source="Vilas, Schaumlöffel and Roig, NeurIPS 2023",
    signed_against=True,
    needs=("exclusive classes",),
)
