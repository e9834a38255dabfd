"""Closed-form gradients and head contributions of one made-up sublayer, against autograd and plain sums."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from classlens.core.attention import (
    LOSSES,
    Functional,
    Loss,
    Output,
    class_gradient,
    contrast_gradient,
    head_contributions,
    loss_gradient,
)
from classlens.core.space import ClassSpace
from classlens.core.steps import Norm, Pool, Projection, Step, UnitLength
from tests import literal

IMAGES, HEADS, TOKENS, CHANNELS, WIDTH, CLASSES = 2, 3, 5, 4, 7, 6


@given(
    st.lists(st.lists(st.floats(-30, 30), min_size=2, max_size=8), min_size=1, max_size=1),
    st.sampled_from(LOSSES),
    st.data(),
)
def test_loss_gradient_is_autograd_s(rows: list[list[float]], loss: Loss, data: st.DataObject) -> None:
    logits = torch.tensor(rows, dtype=torch.float64)
    target = torch.tensor([data.draw(st.integers(0, logits.shape[1] - 1))])
    leaf = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(literal.loss_of(leaf, target, loss), leaf)
    found = loss_gradient(logits[:, None], target, loss)
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-9, atol=1e-14)
    if loss != "logit":
        # Adding a constant to every logit changes no probability, so the gradient has no part along it.
        assert abs(float(found.sum())) < 1e-14
    if loss == "cross_entropy":
        hot = F.one_hot(target, logits.shape[1]).bool()
        assert (found[:, 0][hot] <= 0).all()
        assert (found[:, 0][~hot] >= 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_each_image_has_its_own_target(loss: Loss, generator: torch.Generator) -> None:
    logits = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64)
    target = torch.tensor([4, 0, 2])
    found = loss_gradient(logits, target, loss)
    for image, query in product(range(3), range(2)):
        leaf = logits[image, query][None].clone().requires_grad_()
        (expected,) = torch.autograd.grad(literal.loss_of(leaf, target[image, None], loss), leaf)
        torch.testing.assert_close(found[image, query], expected[0])


def test_contrast_gradient_is_autograd_s(generator: torch.Generator) -> None:
    leaf = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    target, against = torch.tensor([4, 0, 2]), torch.tensor([1, 3, 0])
    images = torch.arange(3)
    (expected,) = torch.autograd.grad((leaf[images, :, against] - leaf[images, :, target]).sum(), leaf)
    assert torch.equal(contrast_gradient(leaf.detach(), target, against), expected)


@pytest.mark.parametrize("bias", [True, False])
def test_an_output_is_its_layer(bias: bool, generator: torch.Generator) -> None:
    layer = nn.Linear(4, 3, bias=bias)
    x = torch.randn(2, 5, 4, generator=generator)
    scale, norm = torch.randn(3, generator=generator), nn.LayerNorm(3)
    assert torch.equal(Output.of(layer).apply(x), layer(x).detach())
    assert torch.equal(Output.of(layer, scale=scale).apply(x), (layer(x) * scale).detach())
    assert torch.equal(Output.of(layer, norm=Norm.of(norm)).apply(x), norm(layer(x)).detach())
    assert not Output.of(layer).weight.requires_grad
    half = Output.of(layer.bfloat16(), scale=scale.bfloat16())
    exact = layer.float()(x) * scale.bfloat16()
    torch.testing.assert_close(half.apply(x), exact.detach())


@dataclass(frozen=True)
class Made:
    """A sublayer from attention weights to logits, its parts random, all in float64."""

    output: Output
    space: ClassSpace
    values: Tensor
    attention: Tensor
    target: Tensor

    def joined(self, attention: Tensor) -> Tensor:
        """Attention times values, the heads side by side."""
        return (attention @ self.values).transpose(1, 2).flatten(2)

    def raw(self, attention: Tensor) -> Tensor:
        y = self.joined(attention)
        y = y if self.output.inner is None else self.output.inner(y)
        return F.linear(y, self.output.weight, self.output.bias)

    def added(self, attention: Tensor) -> Tensor:
        raw = self.raw(attention)
        if self.output.norm is not None:
            return self.output.norm(raw)
        return raw if self.output.scale is None else self.output.scale * raw


OUTPUTS = ("plain", "without bias", "scaled", "layer", "rms", "inner", "inner and scaled", "inner and post")
SPACES = ("layer", "rms", "none", "two", "clip", "pool")


def _made(output: str, space: str, generator: torch.Generator) -> Made:
    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def norm(kind: str, width: int) -> Norm:
        weight, bias = random(width), random(width)
        return Norm("layer", weight, bias, 1e-6) if kind == "layer" else Norm("rms", weight, None, 1e-6)

    inner = HEADS * CHANNELS
    post = {"layer": "layer", "rms": "rms", "inner and post": "layer"}.get(output)
    made = Output(
        weight=random(WIDTH, inner),
        bias=None if output == "without bias" else random(WIDTH),
        scale=random(WIDTH) if "scaled" in output else None,
        norm=norm(post, WIDTH) if post else None,
        inner=norm("layer", inner) if "inner" in output else None,
    )
    mix = random(WIDTH, WIDTH)
    steps: dict[str, tuple[Step, ...]] = {
        "layer": (norm("layer", WIDTH),),
        "rms": (norm("rms", WIDTH),),
        "none": (),
        "two": (norm("layer", WIDTH), norm("rms", WIDTH)),
        "clip": (norm("layer", WIDTH), Projection(random(WIDTH, WIDTH)), UnitLength()),
        "pool": (norm("layer", WIDTH),),
    }
    pool = Pool(lambda tokens: (tokens @ mix).tanh().mean(dim=1)) if space == "pool" else None
    return Made(
        output=made,
        space=ClassSpace(steps[space], (), random(CLASSES, WIDTH), random(CLASSES), pool),
        values=random(IMAGES, HEADS, TOKENS, CHANNELS),
        attention=random(IMAGES, HEADS, TOKENS, TOKENS).softmax(dim=-1),
        target=torch.tensor([1, 4]),
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("output", OUTPUTS)
def test_class_gradient_is_autograd_s(output: str, space: str, loss: Loss, generator: torch.Generator) -> None:
    made = _made(output, space, generator)
    queries = [0, 2, 3]
    expected = torch.zeros(IMAGES, HEADS, TOKENS, dtype=torch.float64)
    for query in queries:
        leaf = made.attention.clone().requires_grad_()
        logits = made.space.project(made.added(leaf)[:, query])
        (gradient,) = torch.autograd.grad(literal.loss_of(logits, made.target, loss), leaf)
        expected -= gradient[:, :, query] / len(queries)
    with torch.no_grad():
        added = made.added(made.attention)[:, queries]
        found = class_gradient(
            made.space,
            made.output,
            added=added,
            raw=made.raw(made.attention)[:, queries] if made.output.norm is not None else None,
            joined=made.joined(made.attention)[:, queries] if made.output.inner is not None else None,
            values=made.values,
            gradient=loss_gradient(made.space.project(added), made.target, loss),
        )
    # Values of order 1 in float64; random norms magnify by ten or so.
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("output", OUTPUTS)
def test_head_contributions_and_bias_rebuild_what_the_sublayer_adds(output: str, generator: torch.Generator) -> None:
    """Any linear function of the stream, pulled through a sublayer whose scales are frozen where they are."""
    made = _made(output, "none", generator)
    queries = [0, 2, 3]
    functional = Functional(
        torch.randn(IMAGES, 1, WIDTH, generator=generator, dtype=torch.float64),
        torch.rand(IMAGES, len(queries), generator=generator, dtype=torch.float64),
    )
    raw = made.raw(made.attention)[:, queries]
    joined = made.joined(made.attention)[:, queries]
    through, bias, *_ = functional.through(made.output, raw, joined)
    found = head_contributions(through, attention=made.attention[:, :, queries], values=made.values)
    assert found.shape == (IMAGES, HEADS, TOKENS)
    expected = functional(made.added(made.attention)[:, queries])
    torch.testing.assert_close(found.sum(dim=(1, 2)) + bias, expected, rtol=1e-9, atol=1e-9)

    # One head and token alone: the rest of the values set to zero, with every scale kept and no bias.
    for head, token in ((0, 1), (2, 4)):
        values = torch.zeros_like(made.values)
        values[:, head, token] = made.values[:, head, token]
        y = (made.attention @ values).transpose(1, 2).flatten(2)[:, queries]
        y = y if made.output.inner is None else _frozen(made.output.inner, joined, y)
        part = y @ made.output.weight.T
        if made.output.norm is not None:
            part = _frozen(made.output.norm, raw, part)
        elif made.output.scale is not None:
            part = part * made.output.scale
        torch.testing.assert_close(found[:, head, token], functional(part), rtol=1e-9, atol=1e-9)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """A value with all its tensors of floats in another precision."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(cast(part, dtype) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: cast(getattr(value, field.name), dtype) for field in fields(value)})
    return value


@pytest.mark.parametrize("space", ["layer", "clip"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_a_model_in_half_precision_is_computed_in_float32(output: str, space: str, generator: torch.Generator) -> None:
    half: Made = cast(_made(output, space, generator), torch.bfloat16)
    tensors: dict[str, Tensor] = {
        "added": half.added(half.attention),
        "raw": half.raw(half.attention),
        "joined": half.joined(half.attention),
    }

    def compute(dtype: torch.dtype) -> tuple[Tensor, ...]:
        made, given = cast(half, dtype), {name: x.to(dtype) for name, x in tensors.items()}
        logits = made.space.project(given["added"])
        maps = class_gradient(
            made.space,
            made.output,
            added=given["added"],
            raw=given["raw"],
            joined=given["joined"],
            values=made.values,
            gradient=loss_gradient(logits, made.target, "logit"),
        )
        direction, weights, constant = made.space.frozen(given["added"], made.target)
        functional, bias, *_ = Functional(direction[:, None], weights).through(
            made.output, given["raw"], given["joined"]
        )
        parts = head_contributions(functional, attention=made.attention, values=made.values)
        return logits, maps, constant, functional.direction, functional.weights, bias, parts

    for found, expected in zip(compute(torch.bfloat16), compute(torch.float64), strict=True):
        assert found.dtype == torch.float32
        # Sums of at most a hundred terms in float32; bfloat16 would be off by 1e-2.
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def _frozen(norm: Norm, where: Tensor, part: Tensor) -> Tensor:
    """The linear part of a norm, with its scale measured elsewhere."""
    if norm.kind == "layer":
        sigma = (where.var(dim=-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
        part = part - part.mean(dim=-1, keepdim=True)
    else:
        sigma = (where.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt()
    return part / sigma if norm.weight is None else part / sigma * norm.weight


@pytest.mark.parametrize("output", ["layer", "inner"])
def test_what_a_norm_needs_must_be_given(output: str, generator: torch.Generator) -> None:
    made = _made(output, "layer", generator)
    added = made.added(made.attention)
    gradient = torch.zeros_like(made.space.project(added))
    with pytest.raises(TypeError, match="needs the"):
        class_gradient(made.space, made.output, added=added, raw=None, values=made.values, gradient=gradient)
    functional = Functional(torch.zeros(IMAGES, 1, WIDTH).double(), torch.zeros(IMAGES, TOKENS).double())
    with pytest.raises(TypeError, match="needs the"):
        functional.through(made.output, None)
