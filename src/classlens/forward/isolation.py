"""Passes that nothing around them changes: one at a time on a model, and outside the caller's contexts of torch."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import wraps
from threading import Condition, get_ident
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from classlens.errors import ClasslensError

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)


@dataclass(eq=False)
class _Holder:
    """The thread that holds a model, and how many times it entered."""

    thread: int | None = None
    depth: int = 0


_holders: WeakKeyDictionary[nn.Module, _Holder] = WeakKeyDictionary()
_awaited: dict[int, _Holder] = {}
"""The model that each waiting thread waits for."""
_change = Condition()
# Whether torch has computed in this process, and whether it had in the process that this one was forked from.
_used, _forked = False, False


def _after_fork() -> None:
    """In a forked process: threads of torch and holders of locks stayed behind, and would be waited for forever."""
    global _change, _forked
    _change = Condition()
    _holders.clear()
    _awaited.clear()
    if _used:
        _forked = True
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def require_threads(count: int) -> None:
    """Raises ClasslensError for more threads of torch than a forked process can have."""
    if _forked and count > 1:
        raise ClasslensError(
            f"this run needs {count} threads of torch, and a process that was forked from one that had used torch has "
            "one: start it with the method spawn or forkserver of multiprocessing, or run in the first process"
        )


@contextmanager
def exclusive(module: nn.Module) -> Iterator[None]:
    """Keep other threads from running a model, so that hooks, flags and edits of a pass are its own.

    Models around one backbone are held together: the key is the first part that has parameters. Raises ClasslensError
    where the thread that holds the model waits, itself or through others, for one that this thread holds.
    """
    parts = (part for part in module.modules() if next(part.parameters(recurse=False), None) is not None)
    thread = get_ident()
    with _change:
        holder = _holders.setdefault(next(parts, module), _Holder())
        while holder.thread not in (None, thread):
            if _waits_for(holder, thread):
                raise ClasslensError(
                    "two threads wait for each other: each edits a model and runs the one that the other edits; end "
                    "the edits of one model before another one is run, or use one thread for both"
                )
            _awaited[thread] = holder
            try:
                _change.wait()
            finally:
                del _awaited[thread]
        holder.thread, holder.depth = thread, holder.depth + 1
    try:
        yield
    finally:
        with _change:
            holder.depth -= 1
            if not holder.depth:
                holder.thread = None
                _change.notify_all()


def _waits_for(holder: _Holder | None, thread: int) -> bool:
    """Whether the thread of a holder waits for another thread, itself or through others."""
    while holder is not None and holder.thread is not None and holder.thread != thread:
        holder = _awaited.get(holder.thread)
    return holder is not None and holder.thread == thread


@contextmanager
def uncompiled(module: nn.Module) -> Iterator[None]:
    """Without ``module.compile()`` of any part: compiled code skips hooks that were registered after it was made."""
    compiled = [(part, part._compiled_call_impl) for part in module.modules() if part._compiled_call_impl is not None]
    try:
        for part, _ in compiled:
            part._compiled_call_impl = None
        yield
    finally:
        for part, call in compiled:
            part._compiled_call_impl = call


@contextmanager
def plain_torch() -> Iterator[None]:
    """Without the caller's autocast and inference mode, and with torch's own default dtype and device."""
    global _used
    _used = True
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for device in ("cpu", "cuda", "mps", "xpu"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield


def isolated(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function in ``plain_torch``; a generator leaves it between two values."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with plain_torch():
            result: Any = function(*args, **kwargs)
        values: Any = _isolated_values(result) if inspect.isgenerator(result) else result
        return values  # type: ignore[no-any-return]

    return call


def _isolated_values(values: Generator[Any, Any, Any]) -> Iterator[Any]:
    with closing(values):
        while True:
            with plain_torch():
                try:
                    value = next(values)
                except StopIteration:
                    return
            yield value


def isolated_methods(cls: C) -> C:
    """Isolate every public method and property of a class."""
    for name, member in list(vars(cls).items()):
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            assert member.fget is not None
            setattr(cls, name, property(isolated(member.fget), doc=member.__doc__))
        elif inspect.isfunction(member):
            setattr(cls, name, isolated(member))
    return cls
