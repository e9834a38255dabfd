"""Arguments of public functions: taken by their annotations, in every form in which people hold them.

A whole number may be an integer of NumPy or an array of one, an array may come from xarray or pandas, and a list may be
an array. What an annotation does not take is an error that names the argument, the value, and what to give.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache, wraps
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from jaxtyping import AbstractArray
from torch import Tensor

from classlens.core.arrays import Array
from classlens.errors import ClasslensError, unknown

T = TypeVar("T")
Sizes = dict[str, int]
Take = Callable[[Any, Sizes], Any]
"""From a value, and the sizes of the named axes so far, to the value as the annotation has it, or ``_REFUSED``."""

_REFUSED = object()


@dataclass(frozen=True)
class Takes:
    """Words for the values of an argument, as in ``Annotated[int, Takes("an even number", lambda n: n % 2 == 0)]``."""

    words: str
    test: Callable[[Any], bool] = lambda _: True


def _is_path(path: str | os.PathLike[str]) -> bool:
    """Whether a file may have this name; the empty one would be the present folder."""
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        return False
    longest = max(map(len, encoded.split(b"/")))
    return path != "" and b"\0" not in encoded and longest <= 255


AtLeast0 = Annotated[int, Takes("a whole number of at least 0", lambda number: number >= 0)]
AtLeast1 = Annotated[int, Takes("a whole number of at least 1", lambda number: number >= 1)]
Seed = Annotated[int, Takes("a whole number from 0 to 2⁶³ - 1", lambda number: 0 <= number < 2**63)]
Share = Annotated[float, Takes("a number between 0 and 1", lambda number: 0 < number < 1)]
NonNegative = Annotated[float, Takes("a number of at least 0", lambda number: 0 <= number < math.inf)]
Positive = Annotated[float, Takes("a number above 0", lambda number: 0 < number < math.inf)]
WholeNumbers = Annotated[
    Array, Takes("whole numbers, one for each", lambda array: array.dtype.kind in "iu" or not array.size)
]
AnyPath = Annotated[str | os.PathLike[str], Takes("a path", _is_path)]


def checked(target: T) -> T:
    """Check and convert the arguments of a function, or of the constructor and every public method of a class.

    ``*args`` and ``**kwargs`` of the function itself pass as they are. A method ``_axis_sizes`` of a class gives the
    sizes of named axes that tensors handed to its other methods must have.
    """
    if not inspect.isclass(target):
        return _checked(target)  # type: ignore[arg-type, return-value]
    sized = hasattr(target, "_axis_sizes")
    fields = getattr(target, "__dataclass_fields__", {})  # whose defaults may be functions
    for name, member in [(name, member) for name, member in vars(target).items() if name not in fields]:
        if name == "__init__" and is_dataclass(target):
            setattr(target, name, _checked(member, hinted=target))
        elif not name.startswith("_") and isinstance(member, classmethod):
            setattr(target, name, classmethod(_checked(member.__func__)))
        elif (not name.startswith("_") or name == "__call__") and inspect.isfunction(member):
            setattr(target, name, _checked(member, sized=sized))
    return target


def _checked(function: Callable[..., Any], *, hinted: Any = None, sized: bool = False) -> Callable[..., Any]:
    takes: dict[str, tuple[Any, Take]] = {}
    positional: list[str] = []

    def prepare() -> None:
        """On the first call, as evaluating annotations takes time and may need what is imported later."""
        found = get_type_hints(hinted or function, include_extras=True)
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                positional.append(parameter.name)
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                hint = found.get(parameter.name, Any)
                takes[parameter.name] = hint, _take(hint)

    def take(name: str, value: Any, sizes: Sizes) -> Any:
        if name not in takes:  # one of ``**options``, or a name that Python refuses
            return value
        hint, take_hint = takes[name]
        return _required(name, value, hint, take_hint(value, sizes), sizes)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not takes:
            prepare()
        sizes: Sizes = args[0]._axis_sizes() if sized else {}
        named = [take(name, value, sizes) for name, value in zip(positional, args, strict=False)]
        others = {name: take(name, value, sizes) for name, value in kwargs.items()}
        return function(*named, *args[len(named) :], **others)

    return call


def taken(name: str, value: Any, hint: Any) -> Any:
    """A value as an annotation has it; raises ClasslensError for one that it does not take.

    Examples:
        >>> taken("block", np.int64(3), int)
        3
    """
    return _required(name, value, hint, _take(hint)(value, {}), {})


def _required(name: str, value: Any, hint: Any, result: Any, sizes: Sizes) -> Any:
    if result is _REFUSED:
        names = _names(hint)
        given = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
        for each in given:
            if names and isinstance(each, str) and each not in names:
                raise unknown(name, each, names)
        raise ClasslensError(f"{name} {shown(value)} cannot be used: give {words(hint, sizes)}")
    return result


def whole_number(name: str, value: object, low: int, high: int | None = None, *, hint: str = "") -> int:
    """The value as an int from ``low`` to ``high``; raises ClasslensError for anything else.

    ``hint`` is added to the end of the error.

    Examples:
        >>> whole_number("block", 3, 0, 11)
        3
    """
    bounds = f"from {low} to {high}" if high is not None else f"of at least {low}"
    number = _take_number(int)(value, {})
    if number is _REFUSED or number < low or (high is not None and number > high):
        raise ClasslensError(f"{name} {shown(value)} cannot be used: give a whole number {bounds}{hint}")
    return int(number)


def is_whole_number(value: object) -> bool:
    """Whether a value is a whole number; True and False are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def shown(value: object) -> str:
    """A value as it stands in an error: short, on one line, arrays by their shape."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim:
        return f"of type {type(value).__name__}, {list(value.shape)}, {value.dtype}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:59]}…"


def tensor_of(value: object) -> Tensor | None:
    """A tensor, or an array as a tensor of its own; None for any other value."""
    if isinstance(value, Tensor):
        return value
    array = _array(value)
    try:
        # A copy in C order: torch takes neither negative strides nor, without a warning, arrays that are read-only.
        return torch.from_numpy(np.array(array, order="C")) if isinstance(array, np.ndarray) else None
    except TypeError:
        return None


def _array(value: Any) -> Any:
    return value.to_numpy() if hasattr(value, "to_numpy") and not inspect.isclass(value) else value


def _plain(value: Any) -> Any:
    """An array of xarray or pandas as one of NumPy; an array or tensor without axes as its number."""
    if isinstance(value := _array(value), np.generic) or (isinstance(value, Tensor | np.ndarray) and value.ndim == 0):
        return value.item()
    return value


@cache
def _take(hint: Any) -> Take:
    """The function by which an annotation takes a value."""
    hint, origin, inner = _read(hint)
    if hint is Any:
        return lambda value, _: value
    if origin is Annotated:
        return _take_tested(_take(inner[0]), [extra.test for extra in inner[1:] if isinstance(extra, Takes)])
    if origin in (Union, UnionType):
        return _take_first([_take(each) for each in inner])
    if origin is Literal:
        return lambda value, _: value if isinstance(value, str) and value in inner else _REFUSED
    if hint in (int, float, bool):
        return _take_number(hint)
    if hint is Tensor:
        return lambda value, _: _REFUSED if (tensor := tensor_of(value)) is None else tensor
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return _take_shape(hint)
    kind = origin or (NoneType if hint is None else hint)
    if kind in (dict, Mapping) and inner:
        return _take_dict(_take(inner[1]))
    if kind is np.ndarray:
        return _take_array
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        return _take_tuple([_take(each) for each in inner])
    if inner and kind in (Sequence, Collection, tuple, list):
        return _take_items(kind, inner[0])
    if kind is Callable:
        return lambda value, _: value if callable(value) else _REFUSED
    if kind is Iterable:
        return lambda value, _: value if isinstance(value, Iterable) and not _is_one(value) else _REFUSED
    return lambda value, _: value if isinstance(value, kind) else _REFUSED


def _take_tested(take: Take, tests: Sequence[Callable[[Any], bool]]) -> Take:
    def tested(value: Any, sizes: Sizes) -> Any:
        result = take(value, sizes)
        return result if result is _REFUSED or all(test(result) for test in tests) else _REFUSED

    return tested


def _take_first(takes: Sequence[Take]) -> Take:
    def first(value: Any, sizes: Sizes) -> Any:
        return next((result for take in takes if (result := take(value, sizes)) is not _REFUSED), _REFUSED)

    return first


def _take_number(kind: type) -> Take:
    """True and False are no numbers, and 3.0 is no whole one."""
    accepted = (int, float) if kind is float else kind

    def number(value: Any, _: Sizes) -> Any:
        if type(value) is not kind:
            value = _plain(value)
        fits = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
        return value if fits else _REFUSED

    return number


def _take_shape(hint: Any) -> Take:
    """A tensor of a kind and a number of axes; axes of one name have one size among the arguments of a call."""
    axes = hint.dim_str.split()
    rows = any(axis.startswith("*") for axis in axes)
    fixed = [axis for axis in axes if not axis.startswith("*")]
    is_kind = _KINDS[hint.__name__.partition("[")[0]][1]

    def shaped(value: Any, sizes: Sizes) -> Any:
        tensor = tensor_of(value)
        if tensor is None or not is_kind(tensor.dtype):
            return _REFUSED
        if tensor.ndim < len(fixed) if rows else tensor.ndim != len(fixed):
            return _REFUSED
        shape = tensor.shape[tensor.ndim - len(fixed) :] if rows else tensor.shape
        found = dict(sizes)
        if any(found.setdefault(axis, size) != size for axis, size in zip(fixed, shape, strict=True)):
            return _REFUSED
        sizes.update(found)
        return tensor

    return shaped


_KINDS: Mapping[str, tuple[str, Callable[[torch.dtype], bool]]] = {
    "Float": ("floats", lambda dtype: dtype.is_floating_point),
    "Int": ("whole numbers", lambda dtype: not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)),
    "Bool": ("bools", lambda dtype: dtype == torch.bool),
}


def _take_array(value: Any, _: Sizes) -> Any:
    array = _array(value)
    return array if isinstance(array, np.ndarray) else _REFUSED


def _take_dict(take: Take) -> Take:
    def items(value: Any, sizes: Sizes) -> Any:
        if not isinstance(value, Mapping):
            return _REFUSED
        results = {key: take(item, sizes) for key, item in value.items()}
        return _REFUSED if any(result is _REFUSED for result in results.values()) else results

    return items


def _take_tuple(takes: Sequence[Take]) -> Take:
    def items(value: Any, sizes: Sizes) -> Any:
        listed = _listed(value, Sequence)
        if listed is _REFUSED or len(listed) != len(takes):
            return _REFUSED
        results = tuple(take(item, sizes) for take, item in zip(takes, listed, strict=True))
        return _REFUSED if any(result is _REFUSED for result in results) else results

    return items


def _take_items(kind: Any, item: Any) -> Take:
    take = _take(item)

    def items(value: Any, sizes: Sizes) -> Any:
        listed = _listed(value, Collection if kind is Collection else Sequence)
        # Millions of names pass at once.
        if listed is _REFUSED or (isinstance(item, type) and all(type(each) is item for each in listed)):
            results = listed
        else:
            results = [take(each, sizes) for each in listed]
            if any(result is _REFUSED for result in results):
                return _REFUSED
        return tuple(results) if kind is tuple and results is not _REFUSED else results

    return items


def _listed(value: Any, kind: Any) -> Any:
    """A sequence or collection as it is, an array as a list."""
    value = _plain(value)
    if isinstance(value, Tensor | np.ndarray):
        return value.tolist()
    return value if isinstance(value, kind) and not _is_text(value) and not isinstance(value, Mapping) else _REFUSED


def _is_one(value: object) -> bool:
    """Whether a value is one thing, though Python iterates over it, or says so."""
    return _is_text(value) or getattr(value, "ndim", 1) == 0


def _is_text(value: object) -> bool:
    return isinstance(value, str | bytes | bytearray | memoryview)


def _names(hint: Any) -> tuple[str, ...]:
    """The names that an annotation takes, one or several of them, where it takes names alone."""
    parts = [part for part in _parts(hint) if part is not NoneType]
    parts = [get_args(part)[0] if get_origin(part) in (Collection, Sequence) else part for part in parts]
    named = all(get_origin(part) is Literal for part in parts)
    return tuple(dict.fromkeys(name for part in parts for name in get_args(part))) if named else ()


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def words(hint: Any, sizes: Mapping[str, int] | None = None) -> str:
    """Words for the values of an annotation.

    Examples:
        >>> words(AtLeast1 | Literal["all"] | None)
        "a whole number of at least 1, 'all' or None"
    """
    parts = list(dict.fromkeys(text for part in _parts(hint) for text in _words(part, sizes or {})))
    return " or ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _read(hint: Any) -> tuple[Any, Any, tuple[Any, ...]]:
    """An annotation, its origin and arguments; ``NDArray`` of NumPy 2.5 is an alias, as Python 3.12 has them."""
    hint = getattr(get_origin(hint) or hint, "__value__", hint)
    return hint, get_origin(hint), get_args(hint)


def _words(hint: Any, sizes: Mapping[str, int]) -> tuple[str, ...]:
    hint, origin, inner = _read(hint)
    if origin is Annotated:
        return (next(extra.words for extra in inner[1:] if isinstance(extra, Takes)),)
    if origin is Literal:
        return tuple(map(repr, inner))
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        kind = _KINDS[hint.__name__.partition("[")[0]][0]
        axes = ", ".join(f"{axis} {sizes[axis]}" if axis in sizes else axis for axis in hint.dim_str.split())
        return (f"a tensor [{axes}] of {kind}",)
    kind = origin or hint
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        return (f"({', '.join(map(words, inner))})",)
    if inner and kind in (Sequence, Collection, tuple, list, Iterable):
        return (f"a list of {words(inner[0])}",)
    return (_WORDS.get(kind) or f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}",)


_WORDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    NoneType: "None",
    os.PathLike: "a path",
    Tensor: "a tensor",
    np.ndarray: "an array",
    Callable: "a function",
    Mapping: "a dict",
    np.integer: "a whole number",
}
