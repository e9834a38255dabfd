"""Images in groups, small enough for the RAM that a method may take."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from classlens.forward.recording import Recording

# Attention weights of all blocks held at once, and as many gradients: 256 MiB each in float32.
_WEIGHTS = 2**26


def slices(count: int, step: int) -> Iterator[slice]:
    """Consecutive slices of ``count`` items, of ``step`` items each and of at least one."""
    for start in range(0, count, max(1, step)):
        yield slice(start, min(start + max(1, step), count))


def explain_in_groups(recording: Recording, explain: Callable[[slice], Tensor]) -> Tensor:
    """Maps of all images on the CPU, from a method that holds the attention weights of a group at once."""
    recording.require_same_edits()
    recording.require_same_model()
    heads = sum(block.heads for block in recording.view.blocks)
    groups = pass_groups(recording, _WEIGHTS // (heads * recording.tokens.count**2))
    return torch.cat([explain(images).detach().cpu() for images in groups])


def pass_groups(recording: Recording, step: int) -> Iterator[slice]:
    """Images in groups for another pass; with edits those of the first pass, as an edit may act across its batch."""
    return slices(len(recording), recording.batch_size if recording.edited else step)
