"""Class space: projection, its gradient, its frozen linear form, and the matrix it folds into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from classlens.core.space import ClassSpace
from classlens.core.steps import Norm, Pool, Projection, Step, UnitLength
from classlens.errors import ClasslensError

KINDS = ("layer", "rms", "projection", "unit")
Kind = Literal["layer", "rms", "projection", "unit"]


@dataclass(frozen=True)
class Case:
    """A random class space, and its steps in torch's own words."""

    space: ClassSpace
    generator: torch.Generator
    width: int
    classes: int

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def literal(self, x: Tensor) -> Tensor:
        """Head of the norms of each token, without classlens."""
        for step in (*self.space.before, *self.space.after):
            x = _literal(step, x)
        return F.linear(x, self.space.weight, self.space.bias)


def _literal(step: Step, x: Tensor) -> Tensor:
    if isinstance(step, Norm) and step.kind == "layer":
        return F.layer_norm(x, x.shape[-1:], step.weight, step.bias, step.eps)
    if isinstance(step, Norm):
        y = x / (x.square().mean(dim=-1, keepdim=True) + step.eps).sqrt()
        y = y if step.weight is None else y * step.weight
        return y if step.bias is None else y + step.bias
    if isinstance(step, Projection):
        return F.linear(x, step.weight, step.bias)
    return F.normalize(x, dim=-1)


@st.composite
def cases(draw: st.DrawFn, most: int = 2, kinds: tuple[str, ...] = KINDS) -> Case:
    width, classes = draw(st.integers(2, 7)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) + 0.3

    def step(kind: str) -> Step:
        affine, biased = draw(st.booleans()), draw(st.booleans())
        if kind == "projection":
            return Projection(random(width, width), random(width) if biased else None)
        if kind == "unit":
            return UnitLength()
        bias = random(width) if biased else None
        weight = random(width) if affine else None
        return Norm("layer" if kind == "layer" else "rms", weight, bias, draw(st.sampled_from([1e-6, 0.2])))

    before = draw(st.lists(st.sampled_from(kinds), max_size=most))
    after = draw(st.lists(st.sampled_from(kinds), max_size=most - len(before)))
    bias = random(classes) if draw(st.booleans()) else None
    space = ClassSpace(tuple(map(step, before)), tuple(map(step, after)), random(classes, width), bias)
    return Case(space, generator, width, classes)


@given(cases())
def test_projects_each_token_through_every_norm_and_the_head(case: Case) -> None:
    x = case.draw(3, 4, case.width)
    torch.testing.assert_close(case.space.project(x), case.literal(x), rtol=1e-9, atol=1e-9)
    assert case.space.num_classes == case.classes


@given(cases())
def test_pooled_averages_between_the_two_groups_of_norms(case: Case) -> None:
    x = case.draw(3, 4, case.width)
    pooled = x
    for step in case.space.before:
        pooled = _literal(step, pooled)
    pooled = sum(pooled[:, token] for token in range(4)) / torch.tensor(4.0)
    for step in case.space.after:
        pooled = _literal(step, pooled)
    expected = F.linear(pooled, case.space.weight, case.space.bias)
    torch.testing.assert_close(case.space.pooled(x), expected, rtol=1e-9, atol=1e-9)


@given(cases())
def test_vjp_is_autograd_s(case: Case) -> None:
    x = case.draw(3, 4, case.width).requires_grad_()
    gradient = case.draw(3, 4, case.classes)
    (expected,) = torch.autograd.grad(case.literal(x), x, gradient)
    with torch.no_grad():
        # Norms of tiny vectors magnify: rounding is a share of the largest gradient.
        tolerance = 1e-9 * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(case.space.vjp(x, gradient), expected, rtol=1e-8, atol=tolerance)


@given(cases())
def test_the_frozen_form_is_the_pooled_logit(case: Case) -> None:
    x = case.draw(3, 4, case.width)
    target = torch.tensor([0, case.classes - 1, case.classes // 2])
    direction, weights, constant = case.space.frozen(x, target)
    logit = torch.einsum("iq,iqw,iw->i", weights, x, direction) + constant
    expected = case.space.pooled(x)[torch.arange(3), target]
    torch.testing.assert_close(logit, expected, rtol=1e-8, atol=1e-8)


@given(cases())
def test_the_frozen_input_of_the_head_has_the_same_logits(case: Case) -> None:
    x = case.draw(3, 4, case.width)
    matrix, weights = case.space.frozen_input(x)
    inputs = torch.einsum("iq,iqw,ow->io", weights, x, matrix)
    for category in range(case.classes):
        _, _, constant = case.space.frozen(x, torch.full((3,), category))
        logit = inputs @ case.space.weight[category] + constant
        torch.testing.assert_close(logit, case.space.pooled(x)[:, category], rtol=1e-8, atol=1e-8)


@given(cases(most=1, kinds=("layer", "rms")))
def test_folding_and_finishing_is_projecting(case: Case) -> None:
    x, more = case.draw(5, case.width), case.draw(5, case.width)
    folded = case.space.fold()
    assert folded is not None
    out = torch.empty(5, case.classes, dtype=torch.float64)
    found = folded.finish((x + more) @ folded.matrix, x + more, out)
    assert found is out
    torch.testing.assert_close(found, case.literal(x + more), rtol=1e-9, atol=1e-9)
    # Linear before the division: the product of a sum is the sum of the products.
    added = folded.finish(x @ folded.matrix + more @ folded.matrix, x + more, torch.empty_like(out))
    torch.testing.assert_close(added, case.literal(x + more), rtol=1e-9, atol=1e-9)


@given(cases())
def test_only_one_norm_or_none_is_folded(case: Case) -> None:
    steps = case.space.steps
    assert (case.space.fold() is not None) == (not steps or (len(steps) == 1 and isinstance(steps[0], Norm)))


def test_a_pool_stands_between_and_is_not_attributed() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    norm = Norm("layer", None, None, 1e-6)
    space = ClassSpace((norm,), (norm,), weight, None, Pool(lambda tokens: tokens.amax(dim=1).exp()))
    once = F.layer_norm(x, (4,), eps=1e-6)
    token_by_token = F.layer_norm(once.exp(), (4,), eps=1e-6) @ weight.T
    torch.testing.assert_close(space.project(x), token_by_token)
    together = F.layer_norm(once.amax(dim=1).exp(), (4,), eps=1e-6) @ weight.T
    torch.testing.assert_close(space.pooled(x), together)
    leaf = x.clone().requires_grad_()
    gradient = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(
        F.layer_norm(F.layer_norm(leaf, (4,), eps=1e-6).exp(), (4,), eps=1e-6) @ weight.T, leaf, gradient
    )
    torch.testing.assert_close(space.vjp(x, gradient), expected)
    assert space.fold() is None
    with pytest.raises(ClasslensError, match="attribution is not defined"):
        space.frozen(x, torch.tensor([0, 1]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tokens_are_projected_in_float32(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(9, 16, generator=generator).to(dtype), torch.randn(6, 16, generator=generator).to(dtype)
    scale, shift = (torch.randn(16, generator=generator).to(dtype) for _ in range(2))
    space = ClassSpace((Norm("layer", scale, shift, 1e-6),), (), weight, None)
    exact = F.layer_norm(x.double(), (16,), scale.double(), shift.double(), 1e-6) @ weight.double().T
    found = space.project(x)
    assert found.dtype == torch.float32
    # Half precision would be off by 1e-2.
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    folded = space.fold()
    assert folded is not None
    assert folded.matrix.dtype == torch.float32
