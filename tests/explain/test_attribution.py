"""Law 3: a class logit is the exact sum of its parts, and every part is what it is called."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import classlens
from classlens.explain import attention_rows
from tests import literal, zoo


@cache
def _twin(name: str) -> dict[str, torch.Tensor]:
    return literal.attribution(zoo.build(name), zoo.pixels(name), zoo.targets(), pooled=zoo.VARIANTS[name].pooled)


def _own_logit(model: torch.nn.Module, pixels: torch.Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    with torch.no_grad():
        logits: torch.Tensor = model(pixels).double()
    return logits.gather(1, zoo.targets()[:, None])[:, 0].numpy()


@pytest.mark.parametrize("name", zoo.VARIANTS)
def test_the_parts_are_those_of_the_frozen_model_and_add_up(name: str) -> None:
    expected = _twin(name)
    # float64 keeps 1e-15 of sums of order 100: 1e-10 leaves room, and no forgotten bias is that small.
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        model, pixels = zoo.build(name, dtype), zoo.pixels(name, dtype=dtype)
        parts = classlens.load(model).trace(pixels).attribution(zoo.targets())
        model_logit = _own_logit(model, pixels)
        assert np.abs(model_logit).max() > 1
        np.testing.assert_allclose(parts.logit, model_logit, rtol=0, atol=tolerance)
        assert {str(variable.dtype) for variable in parts.data_vars.values()} == {str(dtype).removeprefix("torch.")}
        summed = parts.embed + parts.attention.sum(("block", "head")) + parts.mlp.sum("block") + parts.bias
        np.testing.assert_allclose(summed, model_logit, rtol=0, atol=tolerance)
        by_token = parts.attention_token.sum("token")
        np.testing.assert_allclose(by_token, parts.attention, rtol=0, atol=tolerance)
        for part, value in expected.items():
            assert value.abs().max() > 1e-3 or (part == "bias" and name == "cls_no_final_norm")
            np.testing.assert_allclose(parts[part], value, rtol=0, atol=tolerance, err_msg=part)
        heads = expected["attention_token"].sum(dim=-1)
        np.testing.assert_allclose(parts.attention, heads, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", zoo.KINDS)
def test_groups_of_images_and_fused_attention_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_rows, "_WEIGHTS", 1)
    for fused in (True, False):
        parts = classlens.load(zoo.build(name, fused=fused)).trace(zoo.pixels(name)).attribution(zoo.targets())
        for part, value in _twin(name).items():
            np.testing.assert_allclose(parts[part], value, rtol=0, atol=1e-10, err_msg=part)


def test_the_predicted_class_is_the_default() -> None:
    name = "cls_registers"
    model, pixels = zoo.build(name), zoo.pixels(name)
    with torch.no_grad():
        best = model(pixels).max(dim=1)
    parts = classlens.load(model).trace(pixels).attribution()
    np.testing.assert_array_equal(parts.target, best.indices)
    np.testing.assert_allclose(parts.logit, best.values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", zoo.KINDS)
def test_against_a_class_every_part_is_a_difference(name: str) -> None:
    """Two twins, one for each class; the classes differ between images, and one image has the same class twice."""
    model, pixels = zoo.build(name), zoo.pixels(name)
    rival = torch.tensor([4, 0, int(zoo.targets()[2])])
    other = literal.attribution(model, pixels, rival, pooled=zoo.VARIANTS[name].pooled)
    parts = classlens.load(model).trace(pixels).attribution(zoo.targets(), against=rival)
    for part, value in _twin(name).items():
        np.testing.assert_allclose(parts[part], value - other[part], rtol=0, atol=1e-10, err_msg=part)
    with torch.no_grad():
        logits = model(pixels)
    expected = logits.gather(1, zoo.targets()[:, None]) - logits.gather(1, rival[:, None])
    np.testing.assert_allclose(parts.logit, expected[:, 0], rtol=0, atol=1e-10)
    summed = parts.embed + parts.attention.sum(("block", "head")) + parts.mlp.sum("block") + parts.bias
    np.testing.assert_allclose(summed, parts.logit, rtol=0, atol=1e-10)
    assert parts.against.values.tolist() == rival.tolist()
    assert parts.logit[2] == 0


@pytest.mark.parametrize("name", zoo.KINDS)
def test_half_precision_adds_up_to_its_own_rounding(name: str) -> None:
    """The parts are added in float32, but each is read off a bfloat16 forward pass (8 bits)."""
    model, pixels = zoo.build(name, torch.bfloat16), zoo.pixels(name, dtype=torch.bfloat16)
    parts = classlens.load(model).trace(pixels).attribution(zoo.targets())
    summed = parts.embed + parts.attention.sum(("block", "head")) + parts.mlp.sum("block") + parts.bias
    assert summed.dtype == np.float32
    size = abs(parts.embed) + abs(parts.attention).sum(("block", "head")) + abs(parts.mlp).sum("block")
    assert (abs(summed - parts.logit) < 2**-6 * (size + abs(parts.logit))).all()


@pytest.mark.parametrize("name", ["cls_layer_scale", "cls_registers", "cls_rms_post_norm", "avg_norm_before_pool"])
def test_log_odds_are_the_attribution_of_the_class_less_that_of_its_rivals(name: str) -> None:
    """Against every class attributed on its own, in loops, and weighed by hand."""
    model, pixels, target = zoo.build(name), zoo.pixels(name), zoo.targets()
    with torch.no_grad():
        logits = model(pixels)
    classes = [
        literal.attribution(model, pixels, torch.full((3,), category), pooled=zoo.VARIANTS[name].pooled)[
            "attention_token"
        ]
        for category in range(zoo.CLASSES)
    ]
    maps = classlens.load(model).trace(pixels).explain(target, method="log_odds").values
    for image in range(3):
        label = int(target[image])
        total = sum(float(logits[image, category].exp()) for category in range(zoo.CLASSES) if category != label)
        expected = classes[label][image].clone()
        for category in range(zoo.CLASSES):
            if category != label:
                expected -= float(logits[image, category].exp()) / total * classes[category][image]
        image_tokens = expected[..., len(zoo.VARIANTS[name].prefix) if "avg" not in name else 1 :]
        np.testing.assert_allclose(maps[image], image_tokens.numpy(), rtol=0, atol=1e-9)


def test_log_odds_weights_are_their_slopes() -> None:
    logits = torch.randn(1, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    p = logits.softmax(dim=1)[0, 2]
    (slopes,) = torch.autograd.grad((p / (1 - p)).log(), logits)
    rivals = logits.detach().clone()
    rivals[0, 2] = -torch.inf
    torch.testing.assert_close(slopes, torch.eye(7, dtype=torch.float64)[2:3] - rivals.softmax(dim=1))


def test_the_log_odds_of_a_label_are_its_logit() -> None:
    """A sigmoid is a softmax over the logit and 0, so log odds are those of a model with a row of zeros."""
    model, two = zoo.build("cls"), zoo.build("cls")
    model.head, two.head = torch.nn.Linear(24, 1).double(), torch.nn.Linear(24, 2).double()
    with torch.no_grad():
        for given, padded in zip(model.head.parameters(), two.head.parameters(), strict=True):
            padded.zero_()[1] = given[0]
    trace = classlens.load(model, multi_label=True).trace(zoo.pixels("cls"))
    expected = classlens.load(two).trace(zoo.pixels("cls")).explain(1, method="log_odds")
    np.testing.assert_allclose(trace.explain(1).values, expected.values, atol=1e-12)
