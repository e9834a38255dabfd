"""The steps between a token and the class embedding: what they compute, and both of their transposed Jacobians."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from classlens.core.steps import Norm, Pool, Projection, Step, UnitLength, compute_dtype
from classlens.errors import ClasslensError

Made = tuple[Step, Callable[[Tensor], Tensor]]


def _filled(module: nn.Module, generator: torch.Generator) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) + 0.5)
    return module.double()


def _layer(width: int, eps: float, generator: torch.Generator) -> Made:
    module = nn.LayerNorm(width, eps=eps)
    _filled(module, generator)
    return Norm("layer", module.weight.detach(), module.bias.detach(), eps), module


def _layer_without_parameters(width: int, eps: float, generator: torch.Generator) -> Made:
    return Norm("layer", None, None, eps), nn.LayerNorm(width, eps=eps, elementwise_affine=False)


def _rms(width: int, eps: float, generator: torch.Generator) -> Made:
    module = nn.RMSNorm(width, eps=eps)
    _filled(module, generator)
    return Norm("rms", module.weight.detach(), None, eps), module


def _rms_with_bias(width: int, eps: float, generator: torch.Generator) -> Made:
    module = nn.RMSNorm(width, eps=eps)
    _filled(module, generator)
    bias = torch.randn(width, generator=generator, dtype=torch.float64)
    return Norm("rms", module.weight.detach(), bias, eps), lambda x: module(x) + bias


def _projection(width: int, eps: float, generator: torch.Generator) -> Made:
    module = nn.Linear(width, width + 2)
    _filled(module, generator)
    return Projection(module.weight.detach(), module.bias.detach()), module


def _projection_without_bias(width: int, eps: float, generator: torch.Generator) -> Made:
    module = nn.Linear(width, max(1, width - 1), bias=False)
    _filled(module, generator)
    return Projection(module.weight.detach()), module


def _unit_length(width: int, eps: float, generator: torch.Generator) -> Made:
    return UnitLength(), lambda x: x / x.square().sum(dim=-1, keepdim=True).sqrt()


LINEAR_BUT_FOR_SCALE = [
    _layer,
    _layer_without_parameters,
    _rms,
    _rms_with_bias,
    _projection,
    _projection_without_bias,
    _unit_length,
]

Maker = Callable[[int, float, torch.Generator], Made]
makers = pytest.mark.parametrize("make", LINEAR_BUT_FOR_SCALE)
widths = st.integers(2, 9)
seeds = st.integers(0, 2**32)
# From tokens that nearly vanish beside eps to tokens that dwarf it.
magnitudes = st.floats(-3, 3).map(lambda exponent: 10**exponent)
epsilons = st.sampled_from([1e-12, 1e-6, 1e-5, 0.1])


def _drawn(seed: int, width: int, magnitude: float) -> tuple[torch.Generator, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return generator, magnitude * torch.randn(2, 3, width, generator=generator, dtype=torch.float64)


@makers
@given(width=widths, eps=epsilons, seed=seeds, magnitude=magnitudes)
def test_is_what_torch_computes(make: Maker, width: int, eps: float, seed: int, magnitude: float) -> None:
    generator, x = _drawn(seed, width, magnitude)
    step, module = make(width, eps, generator)
    torch.testing.assert_close(step(x), module(x), rtol=1e-10, atol=1e-12)


@makers
@given(width=widths, eps=epsilons, seed=seeds, magnitude=magnitudes)
def test_vjp_is_autograd_s(make: Maker, width: int, eps: float, seed: int, magnitude: float) -> None:
    generator, x = _drawn(seed, width, magnitude)
    step, module = make(width, eps, generator)
    leaf = x.requires_grad_()
    y = module(leaf)
    gradient = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(y, leaf, gradient)
    # The terms that cancel are gradient × weight / σ: rounding is a share of those, not of what is left.
    with torch.no_grad():
        terms = float((step.pull(gradient).abs() * step.inverse_scale(x)).max())
        torch.testing.assert_close(step.vjp(x, gradient), expected, rtol=1e-9, atol=1e-11 * max(terms, 1))


@makers
@given(width=widths, eps=epsilons, seed=seeds, magnitude=magnitudes)
def test_pull_and_scale_rebuild_the_output(make: Maker, width: int, eps: float, seed: int, magnitude: float) -> None:
    """``pull(g) · x · inverse_scale(x) = g · (y - bias)``: what makes attribution add up."""
    generator, x = _drawn(seed, width, magnitude)
    step, module = make(width, eps, generator)
    with torch.no_grad():
        y = module(x)
        gradient = torch.randn(y.shape, generator=generator, dtype=torch.float64)
        without_bias = y if step.bias is None else y - step.bias
        pulled = (step.pull(gradient) * x * step.inverse_scale(x)).sum(dim=-1)
        size = float((gradient.abs() * y.abs()).sum(dim=-1).max())
        torch.testing.assert_close(pulled, (gradient * without_bias).sum(dim=-1), rtol=1e-9, atol=1e-9 * max(size, 1))


@given(width=widths, seed=seeds)
def test_pull_is_linear_in_the_token(width: int, seed: int) -> None:
    """With the scale frozen a sum of contributions is worth the sum of their worths."""
    generator, x = _drawn(seed, width, 1.0)
    for make in LINEAR_BUT_FOR_SCALE:
        step, _ = make(width, 1e-6, generator)
        outer = step(x).shape[-1]
        gradient = torch.randn(2, 3, outer, generator=generator, dtype=torch.float64)
        scale = step.inverse_scale(x)

        def frozen(part: Tensor, step: Step = step, g: Tensor = gradient, scale: Tensor = scale) -> Tensor:
            return (step.pull(g) * part * scale).sum(dim=-1)

        part = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(frozen(part) + frozen(x - part), frozen(x))


@given(width=st.sampled_from([4, 8]), seed=seeds)
def test_a_pool_takes_each_token_as_a_sequence_of_one(width: int, seed: int) -> None:
    generator, x = _drawn(seed, width, 1.0)
    keys, values = (torch.randn(width, width, generator=generator, dtype=torch.float64) for _ in range(2))
    query = torch.randn(width, generator=generator, dtype=torch.float64)

    def attend(tokens: Tensor) -> Tensor:
        weights = (tokens @ keys @ query).softmax(dim=1)
        return torch.einsum("it,itw->iw", weights, (tokens @ values).tanh())

    pool = Pool(attend)
    # One token has the whole weight, whatever its key.
    torch.testing.assert_close(pool(x), (x @ values).tanh())
    gradient = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    by_hand = (gradient * (1 - (x @ values).tanh().square())) @ values.T
    with torch.no_grad():
        torch.testing.assert_close(pool.vjp(x, gradient), by_hand)


def test_a_pool_has_no_linear_part() -> None:
    pool = Pool(lambda tokens: tokens.amax(dim=1))
    for ask in (pool.pull, pool.inverse_scale):
        with pytest.raises(ClasslensError, match=r"not linear in the tokens: use explain\(\)"):
            ask(torch.zeros(1, 2))


def test_half_precision_is_computed_in_float32() -> None:
    expected = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float32: torch.float32}
    assert {dtype: compute_dtype(dtype) for dtype in expected} == expected
    assert compute_dtype(torch.float64) is torch.float64


@pytest.mark.parametrize(
    "layer",
    [
        nn.LayerNorm(5),
        nn.LayerNorm(5, eps=0.1, bias=False),
        nn.LayerNorm(5, elementwise_affine=False),
        nn.RMSNorm(5),
        nn.RMSNorm(5, eps=0.1),
        nn.RMSNorm(5, dtype=torch.bfloat16),
        nn.RMSNorm(5, elementwise_affine=False),
    ],
    ids=str,
)
def test_a_norm_is_its_layer(layer: nn.LayerNorm | nn.RMSNorm, generator: torch.Generator) -> None:
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    x = torch.randn(3, 5, generator=generator).to(next(iter(layer.parameters()), torch.ones(())).dtype)
    found = Norm.of(layer)
    assert torch.equal(found(x), layer(x).detach())
    assert found.weight is None or not found.weight.requires_grad
