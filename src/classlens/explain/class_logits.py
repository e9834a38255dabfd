"""Class logits of recorded tokens, a few MiB at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from classlens.core.steps import logits_at_once
from classlens.errors import not_finite
from classlens.explain.batching import slices
from classlens.forward.recording import Recording


def logit_groups(recording: Recording) -> Iterator[slice]:
    """Images in groups whose logits at one block are held at once."""
    logits = recording.tokens.count * recording.view.num_classes
    return slices(len(recording), logits_at_once(recording.view.device) // logits)


def token_logits(recording: Recording, site: str) -> Iterator[tuple[slice, int, Tensor | slice, Tensor]]:
    """``(images, block, tokens, logits)`` of every token at a site, with logits ``[image, token, category]``."""
    recording.require_same_model()
    view = recording.view
    for images in logit_groups(recording):
        for block, states in recording.walk(site, images):
            for space, tokens in view.spaces(recording.tokens.count):
                yield images, block, tokens, view.space_at(space, site, block).project(states[:, tokens])


def check_finite(logits: Tensor) -> None:
    """Raises ClasslensError for logits that are not finite."""
    # The extremes are NaN or infinite when any logit is; neither a mask nor a float64 copy as large as the logits.
    if not all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(logits)):
        raise not_finite()
