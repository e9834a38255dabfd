"""The class gradient: the closed form against autograd through timm's own modules."""

from __future__ import annotations

from functools import cache
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

import classlens
from classlens.core.attention import LOSSES, Loss
from classlens.explain import class_gradient
from classlens.lens.target import Target
from tests import literal, zoo
from tests.refusals import refused


@cache
def _twin(name: str, loss: Loss = "cross_entropy") -> torch.Tensor:
    """The gradient by autograd, in float64, for the targets of :func:`zoo.targets`."""
    variant = zoo.VARIANTS[name]
    return literal.attention_gradient(
        zoo.build(name),
        zoo.pixels(name),
        zoo.targets(),
        loss=loss,
        pooled=variant.pooled,
        image_tokens=slice(len(variant.prefix), None),
    )


# The loss enters as its derivative by the logits, the same for every kind of block, norm and head: each variant under
# the paper's loss, and each kind of head under each loss.
PAIRS: list[tuple[str, Loss]] = [(name, "cross_entropy") for name in zoo.VARIANTS]
PAIRS += [(name, loss) for name in zoo.KINDS for loss in LOSSES if loss != "cross_entropy"]


@pytest.mark.parametrize(("name", "loss"), PAIRS)
def test_every_block_head_and_token_agrees_with_autograd(name: str, loss: Loss) -> None:
    expected = _twin(name, loss)
    # Both sides round a few hundred float64 operations of order 1, so they part near 1e-14; a wrong term shows at 1e-3.
    assert expected.abs().amax(dim=(0, 2, 3)).min() > 1e-3, "every block must have something to agree on"
    trace = classlens.load(zoo.build(name)).trace(zoo.pixels(name))
    maps = trace.explain(zoo.targets(), loss=loss, method="class_gradient")
    assert maps.dims == ("image", "block", "head", "token")
    np.testing.assert_allclose(maps.values, expected, rtol=0, atol=1e-9)

    summed = trace.map(zoo.targets(), loss=loss, method="class_gradient")
    assert summed.dims == ("image", "row", "column")
    on_grid = expected.sum(dim=(1, 2)).unflatten(1, zoo.VARIANTS[name].grid)
    np.testing.assert_allclose(summed.values, on_grid, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "loss"), PAIRS)
def test_float32_keeps_five_digits(name: str, loss: Loss) -> None:
    model, pixels = zoo.build(name, torch.float32), zoo.pixels(name, dtype=torch.float32)
    maps = classlens.load(model).trace(pixels).explain(zoo.targets(), loss=loss, method="class_gradient")
    assert maps.dtype == np.float32
    expected = _twin(name, loss)
    off = (torch.from_numpy(maps.values) - expected).abs().amax(dim=(2, 3))
    # A softmax that is nearly one-hot is a small difference of probabilities, each rounded on its own, for autograd as
    # well; a probability's rounding is worth that share of the plain logit's gradient.
    rounding = torch.finfo(torch.float32).eps * _twin(name, "logit").abs().amax(dim=(2, 3))
    assert (off <= 1e-5 * expected.abs().amax(dim=(2, 3)) + 8 * rounding).all()


@pytest.mark.parametrize("name", zoo.KINDS)
def test_attention_in_steps_changes_nothing(name: str) -> None:
    """Every other test runs with fused attention."""
    trace = classlens.load(zoo.build(name, fused=False)).trace(zoo.pixels(name))
    np.testing.assert_allclose(
        trace.explain(zoo.targets(), method="class_gradient").values, _twin(name), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("name", zoo.KINDS)
def test_a_batch_is_its_images_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lens, pixels, targets = classlens.load(zoo.build(name)), zoo.pixels(name), zoo.targets()
    expected = _twin(name)
    for number, target in enumerate(targets.tolist()):
        alone = lens.trace(pixels[number : number + 1]).explain(target, method="class_gradient")
        np.testing.assert_allclose(alone.values[0], expected[number], rtol=0, atol=1e-9)
    monkeypatch.setattr(class_gradient, "_ROWS", 1)
    np.testing.assert_allclose(
        lens.trace(pixels).explain(targets, method="class_gradient").values, expected, rtol=0, atol=1e-9
    )


def test_a_target_in_many_forms() -> None:
    names = [f"name {index}" for index in range(zoo.CLASSES)]
    model = zoo.build("cls_layer_scale")
    trace = classlens.load(model, class_names=names).trace(zoo.pixels("cls_layer_scale"))
    indices = zoo.targets().tolist()
    assert len(set(indices)) > 1
    expected = _twin("cls_layer_scale")
    per_image: list[Target] = [indices, tuple(indices), np.array(indices), torch.tensor(indices)]
    for target in (*per_image, [names[index] for index in indices]):
        np.testing.assert_allclose(trace.explain(target, method="class_gradient").values, expected, rtol=0, atol=1e-9)
    for_all: list[Any] = [indices[0], np.int64(indices[0]), names[indices[0]], f" NAME {indices[0]} "]
    for target in for_all:
        np.testing.assert_allclose(
            trace.explain(target, method="class_gradient").values[0], expected[0], rtol=0, atol=1e-9
        )


def test_the_predicted_class_is_the_default() -> None:
    name = "avg_norm_before_pool"
    model, pixels = zoo.build(name), zoo.pixels(name)
    with torch.no_grad():
        predicted = model(pixels).argmax(dim=1)
    trace = classlens.load(model).trace(pixels)
    expected = trace.explain(predicted, method="class_gradient")
    for maps in (trace.explain(method="class_gradient"), trace.explain("predicted", method="class_gradient")):
        np.testing.assert_array_equal(maps.values, expected.values)
        np.testing.assert_array_equal(maps.target, predicted)
    assert not np.array_equal(
        trace.explain((predicted + 1) % zoo.CLASSES, method="class_gradient").values, expected.values
    )


@pytest.mark.parametrize("name", zoo.KINDS)
def test_no_autograd_is_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("autograd was used")

    expected = _twin(name)
    model = zoo.build(name).requires_grad_(False)
    lens = classlens.load(model)  # the self-check compares the closed form with autograd
    for owner, attribute in (
        (torch.autograd, "grad"),
        (torch.autograd, "backward"),
        (torch.Tensor, "backward"),
        (torch.Tensor, "requires_grad_"),
        (torch.autograd.Function, "apply"),
        (torch.func, "vjp"),
        (torch, "enable_grad"),
    ):
        monkeypatch.setattr(owner, attribute, refuse)
    maps = lens.trace(zoo.pixels(name)).explain(zoo.targets(), method="class_gradient")
    np.testing.assert_allclose(maps.values, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", zoo.KINDS)
def test_explains_where_no_graph_can_be_built(name: str) -> None:
    with torch.inference_mode():
        maps = classlens.load(zoo.build(name)).trace(zoo.pixels(name)).explain(zoo.targets(), method="class_gradient")
    np.testing.assert_allclose(maps.values, _twin(name), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", zoo.KINDS)
def test_half_precision_points_the_same_way(name: str) -> None:
    """bfloat16 keeps 8 bits, so the forward pass is a percent off; the explanation must not be much more than that."""
    trace = classlens.load(zoo.build(name, torch.bfloat16)).trace(zoo.pixels(name, dtype=torch.bfloat16))
    maps = trace.explain(zoo.targets(), method="class_gradient").values
    assert maps.dtype == np.float32
    expected = _twin(name).numpy()
    for block in range(expected.shape[1]):
        difference = np.linalg.norm(maps[:, block] - expected[:, block])
        assert difference < 0.1 * np.linalg.norm(expected[:, block])


@pytest.mark.parametrize("name", zoo.KINDS)
def test_why_this_class_and_not_that(name: str) -> None:
    trace = classlens.load(zoo.build(name)).trace(zoo.pixels(name))
    contrast = trace.explain(zoo.targets(), against=2, method="class_gradient")
    difference = trace.explain(zoo.targets(), loss="logit", method="class_gradient") - trace.explain(
        2, loss="logit", method="class_gradient"
    )
    np.testing.assert_allclose(contrast, difference, atol=1e-10)
    assert contrast.attrs["loss"] == "logit"
    np.testing.assert_allclose(
        trace.explain(1, against=4, method="class_gradient"),
        -trace.explain(4, against=1, method="class_gradient"),
        atol=1e-12,
    )
    assert not trace.explain(3, against=3, method="class_gradient").any()


def test_refusals() -> None:
    trace = classlens.load(zoo.build("cls")).trace(zoo.pixels("cls"))
    refused(
        lambda: trace.explain(0, loss="logits", method="class_gradient"), "'logits' is not known; did you mean 'logit'"
    )
    refused(
        lambda: trace.explain(0, against=1, loss="cross_entropy", method="class_gradient"), "difference of two logits"
    )
    for loss in ("hinge", 3, ["logit"]):
        refused(
            lambda loss=loss: trace.explain(0, loss=loss, method="class_gradient"),  # type: ignore[misc]
            "loss ",
            "cross_entropy",
        )
