"""Oracles for models of any library: the library's own modules, the definition of attention, and autograd.

Nothing here imports classlens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Added = tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]
"""A module, and from its first argument and its output to a vector that attention adds to the residual stream."""


def output_itself(_: Tensor, output: Tensor) -> Tensor:
    return output


@dataclass(frozen=True)
class TinyModel:
    """A random model of a library, with the library's own view of it."""

    library: str
    make: Callable[[], Any]
    """A model in float64 and evaluation mode, every parameter random."""
    blocks: Callable[[Any], Sequence[Any]]
    added: Callable[[Any], list[Added]]
    """From a block to the modules whose outputs sum to what attention adds."""
    states: Callable[[Any, Tensor], list[Tensor]]
    """The library's hidden states after each block, ``[image, token, width]``."""
    token_logits: Callable[[Any, Tensor, int], Tensor]
    """Class logits of token vectors through the model's own norms and the head of a readout."""
    prefix: tuple[str, ...] = ("cls",)
    grid: tuple[int, int] = (2, 2)
    size: tuple[int, int] = (16, 16)
    channels: int = 3
    classes: int = 7
    heads: int = 3
    depth: int = 3
    branches: int = 1
    """Attentions in a block."""
    pooling: str = "cls"
    queries: tuple[tuple[int, ...], ...] = ((0,),)
    """For each readout, the tokens that it pools."""
    weights: tuple[float, ...] = (1.0,)
    """For each readout, its weight in the logits."""
    reader: Callable[[int], int] = field(default=lambda token: 0)
    """The readout that projects a token."""
    attributed: bool = True
    logits: Callable[[Any, Tensor], Tensor] = field(default=lambda model, pixels: model(pixels))

    def __call__(self) -> Any:
        return self.make()

    @property
    def count(self) -> int:
        return len(self.prefix) + self.grid[0] * self.grid[1]

    def pixels(self, images: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
        """The same numbers in every precision."""
        shape = (images, self.channels, *self.size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def randomize(model: nn.Module, *, seed: int = 0) -> None:
    """Draw every parameter anew, so that none is left at a value that hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "logit" in name:
                noise = 3.5 + 0.5 * noise
            elif "classifier" in name:
                noise = 0.7 * noise
            elif "position" not in name and parameter.ndim in (2, 4):
                noise = 1.2 * noise / parameter[0].numel() ** 0.5
            elif (("ln" in name or "norm" in name) and name.endswith("weight")) or "lambda" in name or "gamma" in name:
                noise = 1 + 0.4 * noise
            else:
                noise = 0.5 * noise
            parameter.copy_(noise)


def pixels(images: int, size: tuple[int, int], dtype: torch.dtype = torch.float64) -> Tensor:
    """The same numbers in every precision."""
    return torch.randn(images, 3, *size, generator=torch.Generator().manual_seed(1)).to(dtype)


@dataclass
class Attention:
    """One call of attention: weights after the softmax, a leaf of the graph, and values."""

    weights: Tensor
    values: Tensor


@contextmanager
def written_out_attention(change: Callable[[int, Tensor, Tensor], Tensor] | None = None) -> Iterator[list[Attention]]:
    """torch's fused attention replaced by its definition.

    ``change`` maps the number of a call, its weights and its values to the attention output.
    """
    calls: list[Attention] = []

    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **_: Any,
    ) -> Tensor:
        assert dropout_p == 0
        assert not is_causal
        key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            scores = scores + attn_mask
        weights = (scores.exp() / scores.exp().sum(dim=-1, keepdim=True)).detach().requires_grad_()
        calls.append(Attention(weights, value))
        return weights @ value if change is None else change(len(calls) - 1, weights, value)

    fused = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = attend  # type: ignore[assignment]  # one overload of several
    try:
        yield calls
    finally:
        F.scaled_dot_product_attention = fused


@dataclass
class Pass:
    """A forward pass of the untouched model: for each block its input and what attention adds, with their graph."""

    logits: Tensor
    inputs: list[Tensor]
    added: list[Tensor]
    attention: list[list[Attention]]
    """For each block, its attentions."""

    def weights(self, block: int) -> Tensor:
        """``[image, head, query, token]``, the heads of all branches."""
        return torch.cat([call.weights for call in self.attention[block]], dim=1)

    def values(self, block: int) -> Tensor:
        return torch.cat([call.values for call in self.attention[block]], dim=1)


def run(tiny: TinyModel, model: Any, pixels: Tensor) -> Pass:
    """The model's own forward pass with attention written out."""
    inputs: list[Tensor] = []
    added: list[list[Tensor]] = []
    with ExitStack() as stack:
        calls = stack.enter_context(written_out_attention())
        stack.enter_context(torch.enable_grad())
        for block in tiny.blocks(model):
            parts: list[Tensor] = []
            added.append(parts)
            stack.callback(block.register_forward_pre_hook(_first_argument(inputs), with_kwargs=True).remove)
            for module, read in tiny.added(block):
                stack.callback(module.register_forward_hook(_read(parts, read)).remove)
        logits = tiny.logits(model, pixels)
    attention = [calls[number * tiny.branches :][: tiny.branches] for number in range(len(added))]
    first = [x if len(x) == len(pixels) else x.transpose(0, 1) for x in inputs]
    totals = [torch.stack(parts).sum(dim=0) for parts in added]
    totals = [x if len(x) == len(pixels) else x.transpose(0, 1) for x in totals]
    return Pass(logits.detach(), [x.detach() for x in first], totals, attention)


def _first_argument(inputs: list[Tensor]) -> Callable[..., None]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs.append(args[0] if args else next(iter(kwargs.values())))

    return hook


def _read(parts: list[Tensor], read: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., None]:
    def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        parts.append(read(args[0] if args else output, output))

    return hook


def loss_of(logits: Tensor, target: Tensor, loss: str) -> Tensor:
    """The loss that is differentiated, summed over images: written out from its definition."""
    if loss == "logit":
        return -logits[torch.arange(len(logits)), target].sum()
    if loss == "double_softmax":
        logits = F.softmax(logits, dim=-1)
    return F.cross_entropy(logits, target, reduction="sum")


def attention_gradient(tiny: TinyModel, model: Any, own: Pass, target: Tensor, loss: str) -> Tensor:
    """``-∂ℓ/∂A`` by autograd through the model's modules, mean over pooled queries: ``[image, block, head, token]``."""
    result = []
    for calls, added in zip(own.attention, own.added, strict=True):
        gradient: Any = 0.0
        for readout, (queries, weight) in enumerate(zip(tiny.queries, tiny.weights, strict=True)):
            # A query's loss depends on its own row of attention weights alone.
            total: Any = sum(
                loss_of(tiny.token_logits(model, added[:, query], readout), target, loss) for query in queries
            )
            rows = torch.autograd.grad(total, [call.weights for call in calls], retain_graph=True)
            gradient = gradient - weight * torch.cat(rows, dim=1)[:, :, list(queries)].mean(dim=2)
        result.append(gradient)
    return torch.stack(result, dim=1)
