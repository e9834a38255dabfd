"""Reading one forward pass; the only file that registers hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from classlens.models.view import ModelView, Point

Change = Callable[[Tensor, slice], Tensor]
"""From a tensor to another in its place; the slice says which heads or channels it holds of all."""
Receiver = Callable[[int, Tensor], None]


@contextmanager
def watching(view: ModelView, receivers: Mapping[str, Receiver]) -> Iterator[None]:
    """Hand tensors over while the model runs.

        with watching(view, {"mlp_out": lambda block, tensor: ...}):
            view.module(pixels)

    ``receivers`` maps the names of block points (``attn_out``, ``values`` …) to functions of block and tensor; a name
    that a block does not have is passed over. Every hook is gone afterwards, also when the body raises.
    """
    with ExitStack() as stack:
        for number, block in enumerate(view.blocks):
            for name, receive in receivers.items():
                if name in block.points:
                    stack.enter_context(_hooked(block.points[name], partial(receive, number)))
        yield


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every submodule's own ``training`` flag comes back afterwards."""
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in flags:
            part.training = training


@contextmanager
def _hooked(point: Point, receive: Callable[[Tensor], object]) -> Iterator[None]:
    """A hook on every module of a point; ``receive`` is called when the last part has passed."""
    modules = (point.module, *point.more)
    parts: dict[int, Tensor] = {}

    def arrived(place: int, passing: Any) -> None:
        parts[place] = point.read(passing)
        if len(parts) == len(modules):
            whole = [parts.pop(number) for number in range(len(modules))]
            receive(whole[0] if len(whole) == 1 else point.join(whole))

    def before(place: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arrived(place, args[0] if args else next(iter(kwargs.values())))

    def after(place: int, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        arrived(place, output)

    handles = [
        module.register_forward_pre_hook(partial(before, place), with_kwargs=True)
        if point.end == "input"
        else module.register_forward_hook(partial(after, place))
        for place, module in enumerate(modules)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replacing(point: Point, change: Change, *, first: bool = False) -> Iterator[None]:
    """Put other tensors in the place of those that pass; what watches later sees the new ones.

        with replacing(block.points["mlp_out"], lambda x, _: torch.zeros_like(x)):
            view.module(pixels)

    A ``first`` change comes before those that were registered earlier.
    """
    modules = (point.module, *point.more)
    before: dict[int, Tensor] = {}

    def changed(place: int, passing: Any) -> Any:
        x = point.read(passing)
        if point.shares:
            start = sum(point.shares[:place])
            return point.written(passing, change(x, slice(start, start + point.shares[place])))
        if place < len(modules) - 1:  # one of several parts that are summed: the last takes all of the change
            before[place] = x
            return passing
        parts = [before.pop(number) for number in range(place)]
        new = change(torch.stack([*parts, x]).sum(dim=0) if parts else x, slice(None))
        return point.written(passing, new - sum(parts) if parts else new)

    def enter(place: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (changed(place, args[0]), *args[1:]), kwargs
        first = next(iter(kwargs))
        return args, {**kwargs, first: changed(place, kwargs[first])}

    def leave(place: int, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        return changed(place, output)

    with ExitStack() as stack:
        for place, module in enumerate(modules):
            if point.end == "input":
                handle = module.register_forward_pre_hook(partial(enter, place), with_kwargs=True, prepend=first)
            else:
                handle = module.register_forward_hook(partial(leave, place), prepend=first)
            stack.callback(handle.remove)
        yield


@contextmanager
def replacing_output(module: nn.Module, change: Callable[[Any], Any]) -> Iterator[None]:
    """Put something else in the place of what a whole model returns."""
    handle = module.register_forward_hook(lambda _, __, output: change(output))
    try:
        yield
    finally:
        handle.remove()
