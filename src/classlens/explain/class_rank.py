"""Class rank: where the class stands among all classes at each token."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.scores import facts, identifiability
from classlens.explain.class_logits import token_logits
from classlens.explain.method import Method
from classlens.forward.recording import Recording


def class_rank(recording: Recording, target: Int[Tensor, " image"]) -> Float[Tensor, "image block token"]:
    """Class identifiability of each image token after each block: ``1 - rank / C`` of ``resid_post``, in (0, 1].

    Source: Vilas, Schaumlöffel and Roig, *Analyzing Vision Transformers for Image Classification in Class Embedding
    Space*, NeurIPS 2023, section 4.
    """
    tokens, classes = recording.tokens, recording.view.num_classes
    result = torch.empty(len(recording), len(recording.view.blocks), tokens.count, dtype=recording.dtype)
    for images, block, group, logits in token_logits(recording, "resid_post"):
        rows = target[images].to(logits.device).repeat_interleave(logits.shape[1])
        ranks = facts(logits.flatten(0, 1), rows).rank.view(logits.shape[:2])
        result[images, block, group] = identifiability(ranks.to(recording.dtype), classes).cpu()
    return result[:, :, tokens.image]


CLASS_RANK = Method(
    class_rank,
    ("image", "block", "token"),
    label="class rank",
    about="Class identifiability of each token after each block, `1 - rank / C`.",
    source="Vilas, Schaumlöffel and Roig, NeurIPS 2023",
)
