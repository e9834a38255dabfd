"""The one pass that everything runs: modes, gradients, hooks, device and precision."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import classlens
from classlens.forward.run import evaluating, run
from tests import literal, zoo


class _Stop(Exception):
    """Raised inside a context on purpose."""


def test_logits_and_what_passes() -> None:
    model, pixels = zoo.build("cls"), zoo.pixels("cls")
    view = classlens.load(model).view
    expected = literal.states(model, pixels)["mlp_out"]
    model.train()
    before = zoo.snapshot(model)
    passed: list[Tensor] = []
    logits = run(view, pixels.requires_grad_(), {"mlp_out": lambda _, x: passed.append(x)})
    assert zoo.snapshot(model) == before
    assert not logits.requires_grad
    assert all(torch.equal(x, other) for x, other in zip(passed, expected, strict=True))
    model.eval()
    with torch.no_grad():
        assert torch.equal(logits, model(pixels))
        assert torch.equal(run(view, pixels), logits)


def test_pixels_are_given_in_the_precision_of_the_model() -> None:
    view = classlens.load(zoo.build("cls", torch.bfloat16)).view
    assert run(view, zoo.pixels("cls")).dtype == torch.bfloat16


@pytest.mark.parametrize("unfused", [False, True])
@pytest.mark.parametrize("exposing_coefficients", [False, True])
def test_attention_is_opened_and_computed_in_steps_on_demand(unfused: bool, exposing_coefficients: bool) -> None:
    entered: list[str] = []

    @contextmanager
    def noted(name: str) -> Any:
        entered.append(name)
        yield
        entered.append(f"{name} left")

    view = classlens.load(zoo.build("cls")).view
    view = replace(view, unfused=lambda: noted("unfused"), exposing_coefficients=lambda: noted("exposing_coefficients"))
    run(view, zoo.pixels("cls"), unfused=unfused, exposing_coefficients=exposing_coefficients)
    expected = ["unfused"] * unfused + ["exposing_coefficients"] * exposing_coefficients
    assert entered == [*expected, *(f"{name} left" for name in reversed(expected))]


def test_gradients_on_demand() -> None:
    model = zoo.build("cls")
    view, pixels = classlens.load(model).view, zoo.pixels("cls").requires_grad_()
    (gradient,) = torch.autograd.grad(run(view, pixels, gradients=True).sum(), pixels)
    (expected,) = torch.autograd.grad(model(pixels).sum(), pixels)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_a_receiver_that_raises_leaves_no_trace() -> None:
    model = zoo.build("cls")
    view = classlens.load(model).view
    model.train()
    before = zoo.snapshot(model)

    def receive(*_: object) -> None:
        raise _Stop

    with pytest.raises(_Stop):
        run(view, zoo.pixels("cls"), {"mlp_out": receive}, unfused=True, exposing_coefficients=True, gradients=True)
    assert zoo.snapshot(model) == before
    assert torch.is_grad_enabled()


def test_gradients_come_back_on_when_the_body_raises() -> None:
    with pytest.raises(_Stop), evaluating(nn.Linear(1, 1)):
        assert not torch.is_grad_enabled()
        raise _Stop
    assert torch.is_grad_enabled()
