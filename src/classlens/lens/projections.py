"""Recorded tokens in class space: all their logits, and their top classes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.depth_facts import top_classes
from classlens.core.steps import compute_dtype
from classlens.explain.class_logits import check_finite, token_logits
from classlens.forward.recording import Recording
from classlens.lens.facts import site_blocks


def recorded_logits(recording: Recording, site: str) -> Float[Tensor, "image block token category"]:
    """Class logits of every token at a site; raises ClasslensError where they are not finite."""
    result = torch.empty(*_shape(recording, site), recording.view.num_classes, dtype=_dtype(recording))
    for images, block, tokens, logits in token_logits(recording, site):
        result[images, block, tokens] = logits.cpu()
    check_finite(result)
    return result


def recorded_top(
    recording: Recording, site: str, k: int
) -> tuple[Int[Tensor, "image block token place"], Float[Tensor, "image block token place"]]:
    """The classes with the largest logits of every token, and these logits; raises as ``recorded_logits`` does."""
    index = torch.empty(*_shape(recording, site), k, dtype=torch.int64)
    logit = torch.empty(index.shape, dtype=_dtype(recording))
    for images, block, tokens, logits in token_logits(recording, site):
        best = top_classes(logits, k)
        index[images, block, tokens] = best.cpu()
        logit[images, block, tokens] = logits.gather(-1, best).cpu().to(logit)
    check_finite(logit)
    return index, logit


def _shape(recording: Recording, site: str) -> tuple[int, int, int]:
    return len(recording), len(site_blocks(recording.view, site)), recording.tokens.count


def _dtype(recording: Recording) -> torch.dtype:
    return compute_dtype(recording.view.dtype)
