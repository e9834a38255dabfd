"""Lends a model to other people's code, and puts it back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from classlens.errors import ClasslensError
from classlens.forward.run import evaluating


@contextmanager
def lent(module: nn.Module, borrower: str) -> Iterator[None]:
    """Evaluation mode with gradients, for code that may do anything to a model; afterwards the model is as before.

    Gradients that the code leaves on parameters are dropped without a word, as tools that call ``backward`` leave them.
    Raises ClasslensError, which names the ``borrower``, where the code left hooks, another ``forward``, training mode,
    or other weights: its result is then of another model. The random numbers of torch are the same at every call.
    """
    devices = sorted({tensor.device for tensor in module.parameters() if tensor.device.type == "cuda"}, key=str)
    with evaluating(module), torch.enable_grad(), torch.random.fork_rng(devices):
        torch.manual_seed(0)
        before = _Snapshot(module)
        try:
            yield
        except BaseException:
            before.restore()
            raise
        left = before.restore()
    if left:
        raise ClasslensError(
            f"{borrower} left {left}, and the model was put back: use the tool's context manager, or undo it before "
            "the function returns"
        )


class _Snapshot:
    """All that code may leave behind on a model: weights, gradients, hooks, parts, modes and forwards."""

    def __init__(self, module: nn.Module) -> None:
        self._parts = list(module.named_modules())
        self._tables = [{name: dict(vars(part)[name]) for name in _tables(part)} for _, part in self._parts]
        self._kinds = [type(part) for _, part in self._parts]
        self._settings = [_settings(part) for _, part in self._parts]
        self._forwards = [vars(part).get("forward") for _, part in self._parts]
        kinds = {kind for _, part in self._parts for kind in type(part).__mro__ if issubclass(kind, nn.Module)}
        self._classes = {kind: vars(kind).get("forward") for kind in kinds}
        self._tensors = [*module.named_parameters(), *module.named_buffers()]
        self._values = [tensor.detach().clone() for _, tensor in self._tensors]
        self._leaves = [(tensor, tensor.requires_grad, tensor.grad) for _, tensor in self._tensors if tensor.is_leaf]
        for tensor, _, _ in self._leaves:
            tensor.grad = None  # code would add to one that is there

    def restore(self) -> str:
        """Put everything back; returns the first thing that was left, empty where nothing was."""
        left = [*self._restore_parts(), *self._restore_classes(), *self._restore_tensors()]
        return left[0] if left else ""

    def _restore_parts(self) -> Iterator[str]:
        before = zip(self._parts, self._tables, self._forwards, self._kinds, self._settings, strict=True)
        for (name, part), tables, forward, kind, settings in before:
            place = f"part {name!r}" if name else "the model itself"
            if part.training:
                yield f"{place} in training mode"  # `evaluating` gives every part its own mode back
            for table, entries in tables.items():
                current = vars(part)[table]
                if current.keys() != entries.keys() or any(current[key] is not entries[key] for key in entries):
                    current.clear()
                    current.update(entries)
                    yield f"a hook on {place}" if "hooks" in table else f"other weights or parts in {place}"
            if type(part) is not kind:
                part.__class__ = kind
                yield f"another type of {place}"
            changed = [name for name, value in settings.items() if vars(part).get(name, _Snapshot) != value]
            vars(part).update(settings)
            if changed:
                yield f"another {changed[0]} of {place}"
            if vars(part).get("forward") is not forward:
                vars(part).pop("forward", None)
                if forward is not None:
                    vars(part)["forward"] = forward
                yield f"another forward of {place}"

    def _restore_classes(self) -> Iterator[str]:
        for kind, forward in self._classes.items():
            if vars(kind).get("forward") is forward:
                continue
            if forward is None:
                del kind.forward
            else:
                kind.forward = forward
            yield f"another forward of every {kind.__name__}"

    def _restore_tensors(self) -> Iterator[str]:
        for tensor, requires_grad, gradient in self._leaves:
            tensor.requires_grad_(requires_grad)
            tensor.grad = gradient
        with torch.no_grad():
            for (name, tensor), values in zip(self._tensors, self._values, strict=True):
                if not _equal(tensor, values):
                    tensor.data = values if tensor.shape != values.shape else tensor.data.copy_(values)
                    yield f"other values of {name!r}"


def _tables(part: nn.Module) -> list[str]:
    """Attributes of a module that hold its parameters, buffers, parts and hooks by name."""
    return [name for name, value in vars(part).items() if name.startswith("_") and _is_table(name, value)]


def _settings(part: nn.Module) -> dict[str, Any]:
    """Plain attributes of a module, such as the scale of an attention."""
    plain = bool | int | float | str | None
    return {name: value for name, value in vars(part).items() if name != "training" and isinstance(value, plain)}


def _is_table(name: str, value: Any) -> bool:
    return isinstance(value, dict) and (name in ("_parameters", "_buffers", "_modules") or "hooks" in name)


def _equal(tensor: Tensor, values: Tensor) -> bool:
    return tensor.shape == values.shape and torch.equal(tensor.nan_to_num(), values.nan_to_num())
