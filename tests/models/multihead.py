"""Oracles for models of ``torch.nn.MultiheadAttention``: the model's own modules and autograd, nothing of classlens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def randomize(model: nn.Module, *, seed: int = 0) -> None:
    """Draw every parameter anew, so that none is left at a value that hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "logit" in name:
                noise = 3.5 + 0.5 * noise
            elif parameter.ndim == 2 or parameter.ndim == 4:
                noise = 1.2 * noise / parameter[0].numel() ** 0.5
            elif ("ln" in name and name.endswith("weight")) or name.endswith("gamma"):
                noise = 1 + 0.4 * noise
            else:
                noise = 0.5 * noise
            parameter.copy_(noise)


def pixels(images: int, size: tuple[int, int], dtype: torch.dtype = torch.float64) -> Tensor:
    """The same numbers in every dtype."""
    return torch.randn(images, 3, *size, generator=torch.Generator().manual_seed(1)).to(dtype)


@contextmanager
def seen(modules: Sequence[nn.Module], *, end: str = "output") -> Iterator[list[Any]]:
    """What each of these modules takes (its first argument) or gives, in the order in which they run."""
    found: list[Any] = []
    handles = [
        module.register_forward_hook(lambda _, taken, given: found.append(given if end == "output" else taken[0]))
        for module in modules
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def weights_as_leaves() -> Iterator[list[Tensor]]:
    """Attention written out in the place of torch's fused one, its weights after softmax the leaves of the graph."""
    leaves: list[Tensor] = []

    def attend(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        leaves.append(scores.softmax(dim=-1).detach().requires_grad_())
        return leaves[-1] @ value

    fused = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = attend
    try:
        yield leaves
    finally:
        F.scaled_dot_product_attention = fused


def loss_of(logits: Tensor, target: Tensor, loss: str) -> Tensor:
    """The loss that is differentiated, summed over images: written out from its definition."""
    if loss == "logit":
        return -logits[torch.arange(len(logits)), target].sum()
    if loss == "double_softmax":
        logits = F.softmax(logits, dim=-1)
    return F.cross_entropy(logits, target, reduction="sum")


def attention_gradient(
    run: Callable[[], Any],
    added: Sequence[nn.Module],
    class_logits: Callable[[Tensor], Tensor],
    target: Tensor,
    *,
    loss: str,
    pooled: Sequence[int],
    batch_first: bool = True,
) -> Tensor:
    """``-∂ℓ/∂A`` through the model itself, mean over the pooled queries: ``[image, block, head, token]``.

    ``added`` are the modules that pass what each block's attention adds to the residual stream.
    """
    with torch.enable_grad(), weights_as_leaves() as leaves, seen(added) as outputs:
        run()
        result = []
        for leaf, output in zip(leaves, outputs, strict=True):
            output = output if batch_first else output.transpose(0, 1)
            total = sum(loss_of(class_logits(output[:, query]), target, loss) for query in pooled)
            (gradient,) = torch.autograd.grad(torch.as_tensor(total), leaf, retain_graph=True)
            result.append(-gradient[:, :, list(pooled)].mean(dim=2))
    return torch.stack(result, dim=1)


def snapshot(model: nn.Module) -> dict[str, Any]:
    """All that a measurement could leave behind in a model: hooks, flags, patched attributes, changed numbers."""
    return {
        "parts": {
            name: {
                key: list(value) if "hooks" in key else value
                for key, value in vars(module).items()
                if not isinstance(value, Tensor) and key not in ("_parameters", "_buffers", "_modules")
            }
            for name, module in model.named_modules()
        },
        "children": {name: [id(part) for part in module.children()] for name, module in model.named_modules()},
        "parameters": {
            name: (id(parameter), parameter._version, parameter.requires_grad, parameter.grad)
            for name, parameter in model.named_parameters()
        },
        "switches": (torch.backends.mha.get_fastpath_enabled(), torch.is_grad_enabled()),
    }
