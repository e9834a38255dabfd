"""Logits of an edited pass in which the head pools some of the tokens alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from classlens.errors import ClasslensError
from classlens.forward.edits.selection import Group
from classlens.forward.hooks import replacing, replacing_output
from classlens.models.view import ModelView

# What contexts that nest around the same model keep: the head pools the tokens that all of them keep.
_KEPT: WeakKeyDictionary[ModelView, list[Group]] = WeakKeyDictionary()


@contextmanager
def pooling_kept(view: ModelView, keeps: Group) -> Iterator[None]:
    """The head pools kept tokens alone: its output is computed anew where it would see others.

    with pooling_kept(view, tokens_of(view, mask)):
        logits = view.run(pixels)
    """
    last: dict[int, Tensor] = {}
    number = len(view.blocks) - 1
    groups = _KEPT.setdefault(view, [])

    def pooled(output: Any) -> Any:
        states = last.pop(number)
        kept = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        for group in groups:
            kept = kept & group(states)
        if all(bool(kept[:, readout.pooled].all()) for readout in view.readouts):
            return output
        old = view.logits_of(output)
        return _with_logits(view, output, view.logits(states, kept).to(old.dtype))

    with ExitStack() as stack:
        groups.append(keeps)
        stack.callback(groups.remove, keeps)
        stack.enter_context(replacing(view.blocks[number].points["resid_post"], partial(_seen, last, number)))
        stack.enter_context(replacing_output(view.module, pooled))
        yield


def _seen(kept: dict[int, Tensor], number: int, x: Tensor, _: slice) -> Tensor:
    kept[number] = x
    return x


def _with_logits(view: ModelView, output: Any, logits: Tensor) -> Any:
    """What the model returns, with other logits."""
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
