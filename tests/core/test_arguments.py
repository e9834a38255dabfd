"""One value in every form in which people hold it, and what an annotation does not take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from typing_extensions import TypeAliasType

from classlens.core.arguments import (
    AnyPath,
    AtLeast1,
    Share,
    Takes,
    checked,
    is_whole_number,
    taken,
    tensor_of,
    whole_number,
    words,
)
from classlens.errors import ClasslensError
from tests.refusals import refused

THREES = [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), xr.DataArray(3)]
LISTS = [[1, 2], (1, 2), np.array([1, 2]), torch.tensor([1, 2]), xr.DataArray([1, 2]), pd.Series([1, 2]), range(1, 3)]


def test_an_alias_of_a_later_python_is_what_it_stands_for() -> None:
    scalar = TypeVar("scalar")
    alias = TypeAliasType("alias", np.ndarray[Any, np.dtype[scalar]], type_params=(scalar,))
    for hint in (alias[np.integer], int | alias[np.integer]):
        assert taken("k", np.arange(2), hint).tolist() == [0, 1]
        assert "an array" in refused(lambda hint=hint: taken("k", "x", hint), "k 'x'")  # type: ignore[misc]


@pytest.mark.parametrize("given", THREES, ids=lambda given: type(given).__name__)
def test_one_whole_number(given: Any) -> None:
    for hint in (int, int | None, AtLeast1, str | AtLeast1 | Sequence[int], Annotated[int | Tensor, Takes("a class")]):
        assert type(taken("k", given, hint)) is int
        assert taken("k", given, hint) == 3
    assert taken("alpha", given, float) == 3.0
    assert whole_number("k", given, 3, 3) == 3


@pytest.mark.parametrize("given", LISTS, ids=lambda given: type(given).__name__)
def test_several_whole_numbers(given: Any) -> None:
    assert list(taken("blocks", given, Sequence[int])) == [1, 2]
    assert taken("size", given, tuple[int, int]) == (1, 2)
    assert all(type(number) is int for number in taken("size", given, tuple[int, ...]))


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (True, int),
        (np.True_, int),
        (3.0, int),
        ("3", int),
        (torch.tensor([3]), int),
        (0, AtLeast1),
        (float("nan"), Share),
        (1.0, Share),
        (True, float),
        (1, bool),
        ([1, True], Sequence[int]),
        ([1, 2, 3], tuple[int, int]),
        ("ab", Sequence[str]),
        (b"ab", Collection[str]),
        ({"a": 1}, Sequence[str]),
        ("", AnyPath),
        ("a/" + 256 * "b", AnyPath),
        ("a\0b", AnyPath),
        ("\ud800", AnyPath),
        (3, Callable),
        (np.array(3), Iterable[int]),
        (b"ab", Iterable[int]),
        (3, NoneType),
        ({"a": "b"}, dict[str, int]),
        (torch.zeros(2, dtype=torch.int64), Float[Tensor, " width"]),
        (torch.zeros(2, 3), Float[Tensor, " width"]),
        (np.array(["a"]), Float[Tensor, " width"]),
    ],
)
def test_what_an_annotation_does_not_take(value: Any, hint: Any) -> None:
    refused(lambda: taken("option", value, hint), "option ", "cannot be used: give ", words(hint))


def test_names() -> None:
    kind = Literal["mean", "head"]
    refused(lambda: taken("pool", "men", kind), "pool 'men' is not known; did you mean 'mean'?; give one of mean, head")
    refused(lambda: taken("pools", ["head", "maen"], kind | Collection[kind] | None), "'maen'", "did you mean 'mean'?")
    refused(lambda: taken("pool", 3, kind), "pool 3 cannot be used: give 'mean' or 'head'")
    assert taken("pools", {"mean"}, kind | Collection[kind]) == ["mean"]


def scaled(x: Float[Tensor, "*rows width"], weight: Float[Tensor, " width"] | None = None, *rest: int, k: int) -> Any:
    return x, weight, rest, k


SCALED: Any = checked(scaled)


def test_a_function() -> None:
    x, weight, rest, k = SCALED(np.ones((2, 3)), xr.DataArray([1.0, 2.0, 3.0]), True, k=np.int8(2))
    assert isinstance(x, Tensor)
    assert isinstance(weight, Tensor)
    assert (rest, k) == ((True,), 2)
    refused(
        lambda: SCALED(torch.ones(2, 3), torch.ones(2), k=1), "weight of type Tensor, [2], torch.float32", "[width 3]"
    )
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'k'"):
        SCALED(torch.ones(2))
    with pytest.raises(TypeError, match="unexpected keyword argument 'l'"):
        SCALED(torch.ones(2), k=1, l=2)


def test_words() -> None:
    assert words(AtLeast1 | Literal["all"] | None) == "a whole number of at least 1, 'all' or None"
    assert words(str | AnyPath | Tensor | Sequence[int]) == "a text, a path, a tensor or a list of a whole number"


@pytest.mark.parametrize("number", [3, np.int64(3)])
def test_whole_numbers(number: Any) -> None:
    assert is_whole_number(number)
    with pytest.raises(ClasslensError, match="block 3 cannot be used: give a whole number from 0 to 2 of the model"):
        whole_number("block", int(number), 0, 2, hint=" of the model")


def test_arrays_stay_as_they_are() -> None:
    array = np.arange(6.0).reshape(2, 3)[:, ::-1]
    array.flags.writeable = False
    tensor = tensor_of(array)
    assert isinstance(tensor, Tensor)
    assert tensor.tolist() == array.tolist()
    tensor += 1
    assert array[0, 0] == 2
    assert tensor_of(tensor) is tensor
    for other in ("cat.png", [1.0], None, np.array(["a"]), np.array([None]), np.float64(1)):
        assert tensor_of(other) is None
