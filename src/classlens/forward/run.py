"""The one place that runs a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from classlens.forward.hooks import Receiver, watching
from classlens.forward.isolation import exclusive, plain_torch
from classlens.models.view import ModelView

# Flags of timm and OpenCLIP, and of transformers, to compute activations again in the backward pass.
_CHECKPOINTING = ("grad_checkpointing", "gradient_checkpointing")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients or checkpointing, for one thread at a time.

    On exit every submodule gets its own flags back. Hooks would see activations twice that are computed again.
    """
    with exclusive(module), plain_torch():
        flags: list[tuple[nn.Module, str, bool]] = [(part, "training", part.training) for part in module.modules()]
        flags += [
            (part, name, True)
            for part in module.modules()
            for name in _CHECKPOINTING
            if getattr(part, name, False) is True
        ]
        module.eval()
        for part, name, _ in flags:
            setattr(part, name, False)
        try:
            with torch.no_grad():
                yield
        finally:
            for part, name, value in flags:
                setattr(part, name, value)


def run(
    view: ModelView,
    pixels: Float[Tensor, "image channel height width"],
    receivers: Mapping[str, Receiver] | None = None,
    *,
    unfused: bool = False,
    exposing_coefficients: bool = False,
    gradients: bool = False,
) -> Float[Tensor, "row category"]:
    """Class logits of one forward pass in evaluation mode, on the model's device and in its precision.

        run(view, pixels, {"mlp_out": lambda block, tensor: ...})

    Args:
        receivers: functions of block and tensor by the name of a block point; see ``watching``.
        unfused: compute attention in steps, so that its weights pass at ``attention``.
        exposing_coefficients: let memory coefficients of attention pass at ``attn_coefficients``.
        gradients: keep the autograd graph.
    """
    with ExitStack() as stack:
        stack.enter_context(evaluating(view.module))
        if unfused:
            stack.enter_context(view.unfused())
        if exposing_coefficients:
            stack.enter_context(view.exposing_coefficients())
        stack.enter_context(watching(view, receivers or {}))
        if gradients:
            stack.enter_context(torch.enable_grad())
        return view.run(pixels.to(view.device, view.dtype))
