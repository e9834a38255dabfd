"""Maps of captum, for any model: ``--method captum_maps.py:integrated_gradients``."""

from __future__ import annotations

from collections.abc import Callable

from captum.attr import IntegratedGradients, Saliency
from torch import Tensor, nn


def integrated_gradients(model: nn.Module, pixels: Tensor, target: Tensor) -> Tensor:
    """From an image of the normalization's mean color, in 50 steps; signed, [image, channel, row, column]."""
    tool = IntegratedGradients(logits_of(model))
    maps: Tensor = tool.attribute(pixels, target=target, n_steps=50, internal_batch_size=64)
    return maps


def saliency(model: nn.Module, pixels: Tensor, target: Tensor) -> Tensor:
    """The size of the gradient at each pixel; at least 0, [image, channel, row, column]."""
    maps: Tensor = Saliency(logits_of(model)).attribute(pixels, target=target)
    return maps


def logits_of(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The model as a function to logits; models of transformers return them as an attribute."""

    def forward(pixels: Tensor) -> Tensor:
        output = model(pixels)
        logits: Tensor = getattr(output, "logits", output)
        return logits

    return forward
