"""Attention weights and their gradients, in every library, against finite differences of the model itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import classlens
from classlens.forward.differentiable import differentiable_pass
from classlens.forward.hooks import replacing
from classlens.forward.run import run
from classlens.models.view import ModelView
from tests import zoo
from tests.forward.models import IMPLEMENTATIONS, pixels_of, view_of, weights_in_steps


def logits_with(view: ModelView, pixels: Tensor, block: int, added: Tensor) -> Tensor:
    """The model's logits when something is added to the attention weights of one block."""
    with replacing(view.blocks[block].points["attention"], lambda weights, heads: weights + added[:, heads]):
        return run(view, pixels, unfused=True)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_gradients_are_slopes(name: str) -> None:
    view = view_of(name)
    view.module.requires_grad_(False)
    pixels = pixels_of(view)
    weights = weights_in_steps(view, pixels)
    assert len(weights) == len(view.blocks)
    for block in (0, len(weights) - 1):
        graph = differentiable_pass(view, pixels, ("resid_pre",))
        torch.testing.assert_close(graph.logits.detach(), run(view, pixels, unfused=True))
        gradients = torch.autograd.grad(graph.logits[:, 1].sum(), graph.attention[block], retain_graph=True)
        assert [state.shape[0] for state in graph.activations["resid_pre"]] == [2] * len(weights)
        torch.testing.assert_close(torch.cat(graph.attention[block], dim=1).detach(), weights[block])
        (at_tokens,) = torch.autograd.grad(graph.logits[:, 1].sum(), graph.activations["resid_pre"][block])
        assert at_tokens.abs().max() > 1e-6
        gradient = torch.cat(gradients, dim=1)
        way = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(block), dtype=torch.float64)
        step = 1e-5
        up, down = (logits_with(view, pixels, block, sign * step * way)[:, 1].sum() for sign in (1, -1))
        slope = (up - down) / (2 * step)
        assert slope.abs() > 1e-6
        # The error of a central difference is of order step² · f''', and of rounding 1e-15 / step.
        torch.testing.assert_close((gradient * way).sum(), slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_every_method_runs(name: str) -> None:
    """Finite values for every library, of which none is the same for all classes unless it knows of none."""
    from classlens.explain.registry import METHODS

    view = view_of(name)
    trace = classlens.load(view.module).trace(pixels_of(view))
    for method, about in METHODS.items():
        pooled = any(readout.space.pool is not None for readout in trace.recording.view.readouts)
        if pooled and method in ("logit_attribution", "log_odds"):
            continue
        options = {"query": (0, 1)} if pooled and method in ("attention", "rollout", "chefer") else {}
        one, other = (trace.map(target, method=method, **options) for target in (0, 1))
        assert not one.isnull().any(), method
        assert one.dims == ("image", "row", "column")
        assert (not np.array_equal(one, other)) == about.of_class, method


def _fail(*_: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("raises", [False, True])
def test_nothing_is_left(raises: bool) -> None:
    model = zoo.build("cls")
    view, before = classlens.load(model).view, zoo.snapshot(model)
    pixels = zoo.pixels("cls")
    if raises:
        hook = model.blocks[1].register_forward_pre_hook(_fail)
        with pytest.raises(ZeroDivisionError):
            differentiable_pass(view, pixels)
        hook.remove()
    else:
        differentiable_pass(view, pixels)
    assert not pixels.requires_grad
    after = zoo.snapshot(model)
    assert all(
        torch.equal(value, after[key]) if isinstance(value, Tensor) else value == after[key]
        for key, value in before.items()
    )
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())
