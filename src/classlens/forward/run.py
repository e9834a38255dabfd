"""The one place that runs a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from classlens.errors import ClasslensError
from classlens.forward.agreement import COEFFICIENTS
from classlens.forward.hooks import Receiver, watching
from classlens.forward.isolation import exclusive, plain_torch, uncompiled
from classlens.models.view import SHARED_POINTS, ModelView

# Flags of timm and OpenCLIP, and of transformers, to compute activations again in the backward pass.
_CHECKPOINTING = ("grad_checkpointing", "gradient_checkpointing")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, checkpointing or compiled forwards, for one thread at a time.

    On exit every submodule gets its own flags back. Hooks would see activations twice that are computed again. Flags
    are set one by one: ``module.eval()`` would make some adapter layers merge their weights into the model's.
    """
    with exclusive(module), plain_torch(), uncompiled(module):
        flags: list[tuple[nn.Module, str, bool]] = [(part, "training", part.training) for part in module.modules()]
        flags += [
            (part, name, True)
            for part in module.modules()
            for name in _CHECKPOINTING
            if getattr(part, name, False) is True
        ]
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
    counts: Counter[tuple[str, int]] = Counter()

    def receive(name: str, receiver: Receiver, block: int, x: Tensor) -> None:
        counts[name, block] += 1
        receiver(block, x)

    counted = {name: partial(receive, name, receiver) for name, receiver in (receivers or {}).items()}
    with ExitStack() as stack:
        stack.enter_context(evaluating(view.module))
        if unfused:
            stack.enter_context(view.unfused())
        if exposing_coefficients:
            stack.enter_context(view.exposing_coefficients())
        stack.enter_context(watching(view, counted))
        if gradients:
            stack.enter_context(torch.enable_grad())
        logits = view.run(pixels.to(view.device, view.dtype))
    optional = {*SHARED_POINTS, *(() if unfused else ("attention",)), *(() if exposing_coefficients else COEFFICIENTS)}
    _check_counts(view, counts, counted.keys() - optional)
    return logits


class NotPassed(ClasslensError):
    """A point of a block that was not passed exactly once in a pass."""


def _check_counts(view: ModelView, counts: Counter[tuple[str, int]], names: Collection[str]) -> None:
    """Raises NotPassed where hooks were skipped or called again, so that results would hold something else."""
    for number, block in enumerate(view.blocks):
        for name in block.points:
            if name in names and counts[name, number] != 1:
                raise NotPassed(
                    f"{name} of block {number} passed {counts[name, number]} times in one pass of model {view.name!r}: "
                    "load it before its forward is compiled or replaced, or correct the ModelView"
                )
