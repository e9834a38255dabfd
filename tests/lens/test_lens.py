"""The lens: it reads the user's own module, checks that it reads it right, and leaves it as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import xarray as xr
from torch import Tensor

import classlens
from classlens import Lens
from classlens.models.view import Site
from tests import literal, zoo


class _Stop(Exception):
    """Raised by a module on purpose."""


MEASUREMENTS: dict[str, Callable[[Lens, Tensor], Any]] = {
    "check": lambda lens, pixels: lens.check(pixels),
    "trace": lambda lens, pixels: lens.trace(pixels, batch_size=2),
    "facts": lambda lens, pixels: lens.facts(pixels, ("attn_out", "mlp_out", "resid_post"), 0),
    "logits": lambda lens, pixels: lens.trace(pixels).logits("resid_mid"),
    "explain": lambda lens, pixels: lens.trace(pixels).explain(method="class_gradient"),
    "explain while the model runs": lambda lens, pixels: lens.explain(pixels, 0, method="class_gradient"),
    "explain batch by batch": lambda lens, pixels: lens.explain(pixels, method="chefer", batch_size=2),
    "map": lambda lens, pixels: lens.trace(pixels).map(0, loss="double_softmax", method="class_gradient"),
    "attribution": lambda lens, pixels: lens.trace(pixels).attribution(),
    "load": lambda lens, _: classlens.load(lens.view.module),
}


def _held(name: str) -> Any:
    """A model as someone may hold it: training in parts, dropout on, a part frozen, hooks and gradients there."""
    model: Any = zoo.build(name)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.3
    model.train()
    model.blocks[1].eval()
    model.blocks[0].attn.fused_attn = False
    model.blocks[2].requires_grad_(False)
    model.blocks[0].register_forward_hook(lambda *_: None)
    model.head.register_forward_pre_hook(lambda *_: None)
    model.head.bias.grad = torch.ones_like(model.head.bias)
    return model


@pytest.mark.parametrize("name", ["cls_layer_scale", "avg_post_norm"])
def test_measurements_leave_no_trace(name: str) -> None:
    """Law 4."""
    model, pixels = _held(name), zoo.pixels(name)

    def outputs() -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        return model(pixels), torch.rand(1)

    untouched, before_output = zoo.snapshot(model), outputs()
    lens = classlens.load(model)
    before = zoo.snapshot(model)
    assert before == untouched
    assert not torch.equal(outputs()[0], outputs()[0].round()), "an output to compare"
    for measurement, measure in MEASUREMENTS.items():
        random = torch.random.get_rng_state()
        measure(lens, pixels)
        assert torch.equal(torch.random.get_rng_state(), random), f"{measurement} draws from the user's random numbers"
        assert zoo.snapshot(model) == before, measurement
        assert torch.is_grad_enabled(), measurement
        after_output = outputs()
        assert all(torch.equal(*pair) for pair in zip(before_output, after_output, strict=True)), measurement
        assert after_output[0].requires_grad, measurement
    after_output[0].sum().backward()


def test_a_model_that_raises_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pixels = _held("cls_post_norm"), zoo.pixels("cls_post_norm")
    lens = classlens.load(model)
    traced = lens.trace(pixels)
    # The forward pass of a trace works; the pass that takes gradients may be the one that fails.
    second_pass: Callable[[Lens, Tensor], Any] = lambda *_: traced.explain(method="chefer")  # noqa: E731
    for measurement, measure in {**MEASUREMENTS, "second pass": second_pass}.items():
        if measurement == "load":
            continue
        before = zoo.snapshot(model)

        def fail(*_: Any, **__: Any) -> Tensor:
            raise _Stop

        with monkeypatch.context() as patched:
            patched.setattr(model.blocks[1].attn.proj, "forward", fail)
            with pytest.raises(_Stop):
                measure(lens, pixels)
        assert zoo.snapshot(model) == before, measurement
        assert torch.is_grad_enabled(), measurement


def test_dropout_does_not_reach_a_measurement() -> None:
    model = _held("cls_layer_scale")
    pixels = zoo.pixels("cls_layer_scale")
    expected = zoo.build("cls_layer_scale")(pixels).detach()
    torch.testing.assert_close(torch.from_numpy(classlens.load(model).trace(pixels).model_logits.values), expected)


@pytest.mark.parametrize("name", zoo.KINDS)
def test_results_follow_weights_that_are_trained_in_place(name: str) -> None:
    model: Any = zoo.build(name)
    pixels, target = zoo.pixels(name), zoo.targets()
    lens = classlens.load(model)
    before = lens.trace(pixels)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(pixels), target).backward()
        optimizer.step()
    old, new = before.model_logits, lens.trace(pixels)
    assert abs(new.model_logits - old).max() > 1e-3
    fresh = classlens.load(zoo.build(name))
    fresh.view.module.load_state_dict(model.state_dict())
    expected = fresh.trace(pixels)
    for site in ("embed", "attn_out", "resid_post"):
        xr.testing.assert_allclose(new.logits(site), expected.logits(site), rtol=0, atol=1e-11)
    every: tuple[Site, ...] = ("attn_out", "resid_mid", "mlp_out", "resid_post")
    xr.testing.assert_allclose(new.facts(every, target), expected.facts(every, target), rtol=0, atol=1e-11)
    xr.testing.assert_allclose(lens.facts(pixels, every, target), expected.facts(every, target), rtol=0, atol=1e-11)
    xr.testing.assert_allclose(
        new.explain(target, method="class_gradient"),
        expected.explain(target, method="class_gradient"),
        rtol=0,
        atol=1e-11,
    )
    xr.testing.assert_allclose(new.attribution(target), expected.attribution(target), rtol=0, atol=1e-10)
    with torch.no_grad():
        states = literal.states(model, pixels)["mlp_out"]
        logits = torch.stack([literal.class_logits(model, state) for state in states], dim=1)
    torch.testing.assert_close(torch.from_numpy(new.logits("mlp_out").values), logits, rtol=0, atol=1e-11)
    assert lens.check(pixels).law2 < 1e-10


def _scales_its_attention(model: Any) -> None:
    attend = model.blocks[1].drop_path1.forward
    model.blocks[1].drop_path1.register_forward_hook(lambda _, __, output: output)
    forward = model.blocks[1].forward
    model.blocks[1].forward = lambda x, **options: forward(x, **options) + 1e-3 * attend(x)


def _shifts_between_blocks(model: Any) -> None:
    forward = model.blocks[2].forward
    model.blocks[1].forward = lambda x, inner=model.blocks[1].forward, **options: inner(x, **options)
    model.blocks[2].register_forward_pre_hook(lambda _, args: (args[0] + 1e-3, *args[1:]))
    model.blocks[2].forward = forward


def _scales_its_logits(model: Any) -> None:
    forward = model.head.forward
    model.head.forward = lambda x: 1.01 * forward(x)


def _norms_differently(model: Any) -> None:
    forward = model.norm.forward
    model.norm.forward = lambda x: forward(x) + 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_scales_its_attention, "block outputs are not the sum of their parts"),
        (_shifts_between_blocks, "the input of block 2 is not the output of block 1"),
        (_scales_its_logits, "misses the model's logits"),
        (_norms_differently, "misses the model's logits"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_model_that_computes_something_else_is_refused(
    change: Callable[[Any], None], message: str, dtype: torch.dtype
) -> None:
    model = zoo.build("cls", dtype)
    change(model)
    with pytest.raises(classlens.ClasslensError, match=message):
        classlens.load(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    model: Any = zoo.build("cls")
    with torch.no_grad():
        model.blocks[1].mlp.fc1.weight[0, 0] = value
    with pytest.raises(classlens.ClasslensError, match=r"blocks\.1\.mlp\.fc1\.weight"):
        classlens.load(model)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_holds_an_image(batch_size: int) -> None:
    lens, pixels = classlens.load(zoo.build("cls")), zoo.pixels("cls")
    with pytest.raises(classlens.ClasslensError, match=f"batch_size {batch_size} cannot be used"):
        lens.trace(pixels, batch_size=batch_size)
    with pytest.raises(classlens.ClasslensError, match=f"batch_size {batch_size} cannot be used"):
        lens.facts(pixels, "mlp_out", 0, batch_size=batch_size)


def test_one_image_needs_no_batch_axis() -> None:
    lens, pixels = classlens.load(zoo.build("cls")), zoo.pixels("cls")
    xr.testing.assert_identical(lens.trace(pixels[0]).model_logits, lens.trace(pixels[:1]).model_logits)


def test_pixels_of_another_size_are_refused_unless_the_model_takes_them() -> None:
    with pytest.raises(classlens.ClasslensError, match="pixels are 16×32, but model 'VisionTransformer' takes 16×16"):
        classlens.load(zoo.build("cls")).trace(torch.zeros(1, 3, 16, 32))
    lens = classlens.load(zoo.build("cls_dynamic"))
    for size, grid in (((16, 16), (2, 2)), ((24, 8), (3, 1))):
        assert lens.trace(torch.randn(1, 3, *size)).map().shape == (1, *grid)


def test_the_class_of_interest_must_be_known_before_a_pass_that_keeps_nothing() -> None:
    lens = classlens.load(zoo.build("cls"))
    with pytest.raises(classlens.ClasslensError, match="'predicted' is not known while the model runs"):
        lens.facts(zoo.pixels("cls"), "mlp_out", "predicted")
