"""Watches and changes the tensors of a forward pass; the only file that registers hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from classlens.models.view import ModelView, Point

Change = Callable[[Tensor, slice], Tensor]
"""Returns the tensor that replaces the given one; the slice says which of all heads or channels it holds."""
Receiver = Callable[[int, Tensor], None]
"""Takes a block and the tensor that passes there."""


@contextmanager
def watching(view: ModelView, receivers: Mapping[str, Receiver]) -> Iterator[None]:
    """Hand tensors over while the model runs.

        with watching(view, {"mlp_out": lambda block, tensor: ...}):
            view.module(pixels)

    ``receivers`` go by the names of block points (``attn_out``, ``values`` …). Blocks without such a point are skipped,
    and so are points where nothing passes.
    Every hook is removed on exit, also when the body raises.
    """
    with ExitStack() as stack:
        for number, block in enumerate(view.blocks):
            for name, receive in receivers.items():
                if name in block.points:
                    stack.enter_context(_hooked(block.points[name], partial(receive, number)))
        yield


@contextmanager
def _hooked(point: Point, receive: Callable[[Tensor], object]) -> Iterator[None]:
    """A hook on every module of a point; ``receive`` is called when the last part has passed."""
    modules = (point.module, *point.more)
    parts: dict[int, Tensor] = {}

    def collect(index: int, passing: Any) -> None:
        part = point.read(passing)
        if part is None:
            return
        parts[index] = part
        if len(parts) == len(modules):
            ordered = [parts.pop(number) for number in range(len(modules))]
            receive(ordered[0] if len(ordered) == 1 else point.join(ordered))

    def before(index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        collect(index, _argument(point, module, args, kwargs))

    def after(index: int, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        collect(index, output)

    handles = [
        module.register_forward_pre_hook(partial(before, index), with_kwargs=True)
        if point.end == "input"
        else module.register_forward_hook(partial(after, index))
        for index, module in enumerate(modules)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _argument(point: Point, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The argument of a module's call that passes at a point; None where the call leaves it out."""
    if point.argument is None:
        return args[0] if args else next(iter(kwargs.values()))
    if point.argument in kwargs:
        return kwargs[point.argument]
    names = list(signature(module.forward).parameters)
    number = names.index(point.argument) if point.argument in names else len(args)
    return args[number] if number < len(args) else None


@contextmanager
def replacing(point: Point, change: Change, *, first: bool = False) -> Iterator[None]:
    """Replace the tensors that pass at a point; later watchers get the new ones.

        with replacing(block.points["mlp_out"], lambda x, _: torch.zeros_like(x)):
            view.module(pixels)

    A ``first`` change acts before those that were registered earlier.
    """
    modules = (point.module, *point.more)
    earlier: dict[int, Tensor] = {}

    def changed(index: int, passing: Any) -> Any:
        x = point.read(passing)
        assert x is not None, "a point that can be edited is always passed"
        if point.shares:
            start = sum(point.shares[:index])
            return point.written(passing, change(x, slice(start, start + point.shares[index])))
        if index < len(modules) - 1:  # one of several summed parts: the last one takes the whole change
            earlier[index] = x
            return passing
        parts = [earlier.pop(number) for number in range(index)]
        new = change(torch.stack([*parts, x]).sum(dim=0) if parts else x, slice(None))
        return point.written(passing, new - sum(parts) if parts else new)

    def before(index: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (changed(index, args[0]), *args[1:]), kwargs
        name = next(iter(kwargs))
        return args, {**kwargs, name: changed(index, kwargs[name])}

    def after(index: int, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        return changed(index, output)

    with ExitStack() as stack:
        for index, module in enumerate(modules):
            if point.end == "input":
                handle = module.register_forward_pre_hook(partial(before, index), with_kwargs=True, prepend=first)
            else:
                handle = module.register_forward_hook(partial(after, index), prepend=first)
            stack.callback(handle.remove)
        yield


@contextmanager
def replacing_output(module: nn.Module, change: Callable[[Any], Any]) -> Iterator[None]:
    """Replace the output of a whole module, whatever its type."""
    handle = module.register_forward_hook(lambda _, __, output: change(output))
    try:
        yield
    finally:
        handle.remove()
