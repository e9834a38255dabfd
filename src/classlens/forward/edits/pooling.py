"""Makes the head pool some of the tokens alone, for the length of a context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from classlens.errors import ClasslensError
from classlens.forward.edits.selection import TokenSelector
from classlens.forward.hooks import replacing, replacing_output
from classlens.models.view import ModelView

# Selectors of all contexts around a model: the head pools tokens that every one of them selects.
_SELECTORS: WeakKeyDictionary[nn.Module, list[TokenSelector]] = WeakKeyDictionary()


def kept_tokens(view: ModelView, images: int, tokens: int) -> Bool[Tensor, "image token"] | None:
    """The tokens that may be pooled; None where all may."""
    selectors = _SELECTORS.get(view.module)
    if not selectors:
        return None
    states = torch.empty(images, tokens, 0, device=view.device)
    mask = torch.ones(images, tokens, dtype=torch.bool, device=view.device)
    for selector in selectors:
        mask = mask & selector(states)
    return mask


@contextmanager
def pooling_over(view: ModelView, tokens: TokenSelector) -> Iterator[None]:
    """The head pools these tokens alone: logits are computed anew where it would pool others.

    with pooling_over(view, token_selector(view, mask)):
        logits = run(view, pixels)
    """
    last_states: list[Tensor] = []
    selectors = _SELECTORS.setdefault(view.module, [])

    def keep(x: Tensor, _: slice) -> Tensor:
        last_states[:] = [x]
        return x

    def pooled(output: Any) -> Any:
        states = last_states.pop()
        mask = kept_tokens(view, *states.shape[:2])
        assert mask is not None, "this context selects tokens"
        if all(bool(mask[:, readout.pooled].all()) for readout in view.readouts):
            return output
        logits = view.logits(states, mask)
        return _with_logits(view, output, logits.to(view.logits_of(output).dtype))

    with ExitStack() as stack:
        selectors.append(tokens)
        stack.callback(selectors.remove, tokens)
        stack.enter_context(replacing(view.blocks[-1].points["resid_post"], keep))
        stack.enter_context(replacing_output(view.module, pooled))
        yield


def _with_logits(view: ModelView, output: Any, logits: Tensor) -> Any:
    """The model's output with other logits."""
    if isinstance(output, Tensor):
        return logits
    if isinstance(output, tuple):
        return (logits, *output[1:])
    if hasattr(output, "logits") and hasattr(output, "items"):  # transformers' outputs
        return type(output)(**{**output, "logits": logits})
    raise ClasslensError(
        f"model {view.name!r} returns a {type(output).__name__}, in which logits of some tokens cannot be put: "
        "describe one that returns a tensor"
    )
