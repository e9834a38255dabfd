"""Registries: rows by name, imported when first used."""

from __future__ import annotations

import sys

import pytest

from classlens.errors import ClasslensError
from classlens.registry import Registry


def test_names_are_known_without_an_import() -> None:
    registry: Registry[object] = Registry("letter", {"a": "classlens_no_such_module:A", "b": 2})
    assert (list(registry), len(registry), "a" in registry, "c" in registry) == (["a", "b"], 2, True, False)
    assert registry["b"] == 2
    with pytest.raises(ModuleNotFoundError):
        registry["a"]


def test_a_row_is_an_attribute_or_a_module() -> None:
    registry: Registry[object] = Registry("thing", {"stack": "graphlib:CycleError", "module": "graphlib"})
    assert registry["stack"] is sys.modules["graphlib"].CycleError
    assert registry["module"] is sys.modules["graphlib"]


def test_selection_keeps_the_order_of_the_registry() -> None:
    registry = Registry("letter", {"a": 1, "b": 2, "c": 3})
    assert registry.select(["c", "a"]) == ("a", "c")
    assert registry.select("b") == ("b",)
    assert registry.select("all") == ("a", "b", "c")


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    registry = Registry("method", {"chefer": 1, "rollout": 2})
    with pytest.raises(
        ClasslensError, match=r"method 'chefr' is not known; did you mean 'chefer'\?; give one of chefer, rollout"
    ):
        registry["chefr"]
    with pytest.raises(ClasslensError, match="give some of chefer, rollout"):
        registry.select(["rollout", "x"])
    with pytest.raises(ClasslensError, match="no methods were given: give some of chefer, rollout, or all"):
        registry.select([])


def test_records_come_and_go() -> None:
    registry = Registry("letter", {"a": 1})
    registry.register("z", 26)
    assert registry.select("all") == ("a", "z")
    registry.unregister("z")
    assert "z" not in registry
