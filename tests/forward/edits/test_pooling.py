"""Pooling over some tokens: every type that a model may return, and contexts that nest."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import classlens
from classlens import ClasslensError
from classlens.forward.edits.pooling import pooling_over
from classlens.forward.edits.selection import token_selector
from classlens.models.view import ModelView
from tests import zoo


class Output(OrderedDict[str, Tensor]):
    """As transformers' outputs: a dict with attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


WRAPPED: dict[str, Any] = {
    "tuple": (lambda logits: (logits, "more"), lambda output: output[0]),
    "dict with attributes": (
        lambda logits: Output(logits=logits, more=logits + 1),
        lambda output: output.logits,
    ),
    "other": (lambda logits: SimpleNamespace(logits=logits), lambda output: output.logits),
}


def wrapped(kind: str) -> tuple[ModelView, Tensor]:
    """A model that returns its logits within something else, and the mean of tokens 2 and 4 as its head gives it."""
    pack, unpack = WRAPPED[kind]
    vit: Any = zoo.build("avg_excludes_cls")
    view = classlens.load(vit).view

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = vit

        def forward(self, pixels: Tensor) -> Any:
            return pack(self.vit(pixels))

    x = zoo.pixels("avg_excludes_cls")
    with torch.no_grad():
        tokens = vit.forward_features(x)
        expected = vit.head(vit.fc_norm(tokens[:, [2, 4]].mean(dim=1)))
    return ModelView(**{**vars(view), "module": Wrapped(), "logits_of": unpack}), expected


@pytest.mark.parametrize("kind", ["tuple", "dict with attributes"])
def test_logits_are_replaced_within_an_output(kind: str) -> None:
    view, expected = wrapped(kind)
    x = zoo.pixels("avg_excludes_cls")
    with torch.no_grad():
        plain = view.module(x)
        with pooling_over(view, token_selector(view, [0, 2, 4])):
            output = view.module(x)
    assert type(output) is type(plain)
    torch.testing.assert_close(view.logits_of(output), expected, rtol=0, atol=1e-12)
    if kind == "tuple":
        assert output[1] == "more"
    else:
        assert torch.equal(output["more"], plain["more"])


def test_an_output_of_another_type() -> None:
    view, _ = wrapped("other")
    x = zoo.pixels("avg_excludes_cls")
    with torch.no_grad(), pooling_over(view, token_selector(view, "all")):
        view.module(x)  # nothing to pool anew
    with pytest.raises(ClasslensError, match="returns a SimpleNamespace, in which logits of some tokens cannot be put"):
        with torch.no_grad(), pooling_over(view, token_selector(view, [0, 2, 4])):
            view.module(x)


def test_contexts_nest() -> None:
    """The head pools what every context selects."""
    view, expected = wrapped("tuple")
    x = zoo.pixels("avg_excludes_cls")
    before = zoo.snapshot(view.module)
    with torch.no_grad(), pooling_over(view, token_selector(view, [1, 2, 4])):
        with pooling_over(view, token_selector(view, [0, 2, 3, 4])):
            both = view.run(x)
        outer = view.run(x)
    torch.testing.assert_close(both, expected, rtol=0, atol=1e-12)
    assert not torch.allclose(outer, both)
    assert zoo.snapshot(view.module) == before
