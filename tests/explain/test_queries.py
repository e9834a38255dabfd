"""The token whose attention is explained: every way to name one, and what no token is."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import classlens
from tests import literal, zoo
from tests.forward.models import weights_in_steps
from tests.models.tiny_timm import FAMILIES
from tests.refusals import refused


@pytest.mark.parametrize(("query", "position"), [("cls", 0), ("reg1", 2), ((1, 0), 5), (4, 4)])
def test_another_query(query: Any, position: int) -> None:
    """The gradient for a token's own attention, read through its own class space, by autograd."""
    name = "cls_registers"
    trace = classlens.load(zoo.build(name)).trace(zoo.pixels(name))
    expected = literal.attention_gradient(
        zoo.build(name),
        zoo.pixels(name),
        zoo.targets(),
        loss="logit",
        pooled=(position,),
        image_tokens=slice(3, None),
    )
    maps = trace.explain(zoo.targets(), loss="logit", query=query, method="class_gradient")
    np.testing.assert_allclose(maps.values, expected, atol=1e-9)
    assert maps.attrs["query"] == str(query)
    every = trace.explain_every_class(query=query)
    assert every.attrs["query"] == str(query)
    for image, target in enumerate(zoo.targets().tolist()):
        np.testing.assert_allclose(every[image, target], expected[image].sum(dim=(0, 1)), atol=1e-9)
    raw = trace.explain(method="attention", query=query)
    np.testing.assert_array_less(raw.sum("token"), 1)


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.pooling == "map"])
def test_a_head_that_pools_by_attention_needs_a_query(name: str) -> None:
    """A plain mean over all rows is not what such a head reads."""
    module: Any = FAMILIES[name].make()
    zoo.randomize(module)
    trace = classlens.load(module.double().eval()).trace(torch.randn(2, 3, 32, 32, dtype=torch.float64))
    tokens = trace.recording.tokens.image
    weights = weights_in_steps(trace.recording.view, trace.recording.pixels)
    for method in ("attention", "rollout", "chefer"):
        refused(
            lambda method=method: trace.explain(0, method=method),  # type: ignore[misc]
            "query=(row, column)",
            "use class_gradient",
            "attention of its own",
        )
        maps = trace.explain(0, method=method, query=(1, 0))
        if method == "attention":
            row = weights[-1].mean(dim=1)[:, tokens.start + trace.recording.tokens.grid[1], tokens]
            np.testing.assert_allclose(maps, row, atol=1e-12)
        assert float(maps.max()) > 0
    assert float(trace.explain(0, method="class_gradient").max()) > 0


def test_positions_as_lists_and_as_numbers_of_numpy() -> None:
    trace = classlens.load(zoo.build("cls")).trace(zoo.pixels("cls"))
    for method in ("class_gradient", "rollout"):
        expected = trace.explain(0, method=method, query=(1, 0)).values
        for query in ([1, 0], (np.int64(1), np.int32(0)), 3, np.int64(3)):
            np.testing.assert_array_equal(trace.explain(0, method=method, query=query).values, expected)


def test_refusals() -> None:
    trace = classlens.load(zoo.build("cls_registers")).trace(zoo.pixels("cls_registers"))
    refused(
        lambda: trace.explain(0, query="reg", method="class_gradient"),
        "'reg' is no prefix token",
        "'cls', 'reg0', 'reg1'",
    )
    query: Any
    for query in (1.5, True, (1.5, 2), ("cls", 1)):
        refused(partial(trace.explain, 0, query=query, method="class_gradient"), "query ", "a position")
    for query in (7, -1):
        explain = partial(trace.explain, 0, query=query, method="class_gradient")
        refused(explain, "query ", "a whole number from 0 to 6")
    for query in ((3,), (2, 0), (0, -1), [0, 1, 1]):
        refused(
            lambda query=query: trace.explain(0, method="rollout", query=query),  # type: ignore[misc]
            "query ",
            "within the grid of 2 by 2",
        )
