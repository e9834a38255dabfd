"""A random order of the image tokens: the baseline of every measure of faithfulness."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.arguments import whole_number
from classlens.explain.method import Method
from classlens.forward.recording import Recording

# Largest seed that torch and NumPy both accept.
_LARGEST_SEED = 2**63 - 1


def random(recording: Recording, target: Int[Tensor, " image"], *, seed: int = 0) -> Float[Tensor, "image token"]:
    """One random order of the image tokens for all images: positions in it, divided by the number of tokens."""
    seed = whole_number("seed", seed, 0, _LARGEST_SEED)
    image_tokens = recording.tokens.image
    order = torch.randperm(image_tokens.stop - image_tokens.start, generator=torch.Generator().manual_seed(seed))
    return (order.to(recording.dtype) / len(order)).expand(len(recording), -1).clone()


RANDOM = Method(
    random,
    ("image", "token"),
    label="random",
    about="One random order of the tokens for all images; a baseline.",
    color="#8a8f98",
    of_class=False,
    drawn=True,
)
