"""Layers that are not what they seem: adapters, hooks and quantized layers are merged, read right, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import classlens
from tests import zoo
from tests.refusals import refused

NAME = "cls_registers"
MERGE = "model = model.merge_and_unload()"


class LoraLibLinear(nn.Linear):
    """Like ``loralib.Linear``: entering evaluation mode merges the adapter into the weight, training takes it out."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None)
        self.weight, self.bias = layer.weight, layer.bias
        self.lora_A = nn.Parameter(torch.randn(2, layer.in_features).to(layer.weight))
        self.lora_B = nn.Parameter(torch.randn(layer.out_features, 2).to(layer.weight))
        self.merged, self.merge_weights = False, True

    def train(self, mode: bool = True) -> LoraLibLinear:
        super().train(mode)
        if self.merge_weights and self.merged == mode:
            self.weight.data += (self.lora_B @ self.lora_A) * (-0.1 if mode else 0.1)
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        result = nn.functional.linear(x, self.weight, self.bias)
        return result if self.merged else result + 0.1 * (x @ self.lora_A.T @ self.lora_B.T)


class PeftLinear(nn.Module):
    """Like the LoRA layer of peft: a plain layer within, whose weight it shows as its own."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = layer
        self.lora_A = nn.Parameter(torch.randn(2, layer.in_features).to(layer.weight))
        self.lora_B = nn.Parameter(torch.randn(layer.out_features, 2).to(layer.weight))
        self.merged_adapters: list[str] = []

    @property
    def merged(self) -> bool:
        return bool(self.merged_adapters)

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base_layer.bias

    @property
    def in_features(self) -> int:
        return self.base_layer.in_features

    def get_base_layer(self) -> nn.Linear:
        return self.base_layer

    def merge(self) -> None:
        self.base_layer.weight.data += 0.1 * self.lora_B @ self.lora_A
        self.merged_adapters = ["default"]

    def forward(self, x: Tensor) -> Tensor:
        added = 0.0 if self.merged else 0.1 * (x @ self.lora_A.T @ self.lora_B.T)
        result: Tensor = self.base_layer(x) + added
        return result


class PeftModel(nn.Module):
    """Like peft's wrapper around a model with such layers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.model = model

    def get_base_model(self) -> nn.Module:
        model: Any = self.base_model.model
        return model  # type: ignore[no-any-return]

    def merge_and_unload(self) -> nn.Module:
        model = self.get_base_model()
        for parent in list(model.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, PeftLinear):
                    layer.merge()
                    setattr(parent, name, layer.base_layer)
        return model

    def forward(self, pixels: Tensor) -> Tensor:
        result: Tensor = self.get_base_model()(pixels)
        return result


ADAPTERS: dict[str, Callable[[nn.Linear], nn.Module]] = {"loralib": LoraLibLinear, "peft": PeftLinear}
PLACES = ("blocks.1.attn.proj", "blocks.1.mlp.fc2", "head", "blocks.1.attn.qkv", "blocks.1.mlp.fc1")


def adapted(kind: str, *places: str) -> Any:
    torch.manual_seed(0)
    model = zoo.build(NAME)
    for place in places:
        model.set_submodule(place, ADAPTERS[kind](model.get_submodule(place)))  # type: ignore[arg-type]
    return model


def assert_right(lens: classlens.Lens, module: nn.Module) -> None:
    """The model's own logits, and an attribution that sums to them."""
    trace = lens.trace(zoo.pixels(NAME))
    with torch.no_grad():
        np.testing.assert_allclose(trace.model_logits, module(zoo.pixels(NAME)), rtol=0, atol=1e-10)
    parts = trace.attribution(2)
    total = parts["embed"] + parts["attention"].sum(["block", "head"]) + parts["mlp"].sum("block") + parts["bias"]
    np.testing.assert_allclose(total, parts["logit"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters(kind: str, place: str, wrapped: bool) -> None:
    """Right where the weights that are read are whole; merged in a copy otherwise."""
    model = adapted(kind, place)
    given: Any = PeftModel(model) if wrapped and kind == "peft" else model
    before = zoo.snapshot(given)
    if place in PLACES[3:]:
        assert_right(classlens.load(given), model)
    else:
        refused(lambda: classlens.load(given), MERGE, "load(…, merge_adapters=True)")
    merged = classlens.load(given, merge_adapters=True)
    assert_right(merged, model)
    assert zoo.snapshot(given) == before
    assert type(merged.view.module.get_submodule(place)) is nn.Linear


def test_loralib_merges_in_evaluation_mode_and_again_leaves_in_training() -> None:
    """A lens must not do either: training would go on with a merged adapter."""
    model = adapted("loralib", "blocks.0.attn.proj")
    layer = model.blocks[0].attn.proj
    model.eval()
    lens = classlens.load(model)
    assert_right(lens, model)
    model.train()
    refused(lambda: lens.trace(zoo.pixels(NAME)), "attention of block 0 adds something else than its heads", MERGE)
    assert not layer.merged
    model.eval()
    assert_right(lens, model)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_adapters_within_another_wrapper(wrap: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = adapted("peft", PLACES[0])
    given = wrap(PeftModel(model))
    refused(lambda: classlens.load(given), MERGE)
    with caplog.at_level("WARNING", "classlens"):
        assert_right(classlens.load(wrap(PeftModel(adapted("peft", PLACES[3])))), adapted("peft", PLACES[3]))
    assert caplog.messages == [f"{type(given).__name__} and PeftModel around the model taken off"]
    assert_right(classlens.load(given, merge_adapters=True), model)


def test_adapters_of_a_model_by_name() -> None:
    refused(lambda: classlens.load("builtin:cifar10", merge_adapters=True), "merge_adapters goes with a module")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("blocks.1.attn.proj", "attention of block 1 adds something else than its heads"),
        ("blocks.2.mlp.fc2", "the MLP of block 2 adds something else than its hidden units"),
    ],
)
def test_hooks_that_change_what_a_projection_adds(place: str, reason: str) -> None:
    model = zoo.build(NAME)
    model.get_submodule(place).register_forward_hook(lambda _, __, output: 1.001 * output)
    refused(lambda: classlens.load(model), reason, "remove hooks")


@pytest.mark.parametrize("place", ["blocks.1.attn.qkv", "blocks.1.mlp.act", "blocks.1.norm1", "patch_embed"])
def test_hooks_that_change_what_is_read(place: str) -> None:
    model = zoo.build(NAME)
    model.get_submodule(place).register_forward_hook(lambda _, __, output: 0.9 * output)
    assert_right(classlens.load(model), model)


class Int8Linear(nn.Linear):
    """Like 8-bit layers: the weight is a tensor of codes."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features)
        self.scale = float(layer.weight.detach().abs().max()) / 127
        codes = (layer.weight.detach() / self.scale).round().to(torch.int8)
        self.weight, self.bias = nn.Parameter(codes, requires_grad=False), layer.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale, self.bias)


class Rounded(nn.Linear):
    """Like quantization that keeps floating-point weights: the layer computes with others than it shows."""

    def forward(self, x: Tensor) -> Tensor:
        step = self.weight.abs().max() / 7
        return nn.functional.linear(x, (self.weight / step).round() * step, self.bias)


@pytest.mark.parametrize("place", ["blocks.1.attn.proj", "blocks.1.mlp.fc2", "head", "blocks.0.attn.qkv"])
def test_quantized_layers(place: str) -> None:
    model: Any = zoo.build(NAME)
    model.set_submodule(place, Int8Linear(model.get_submodule(place)))
    refused(lambda: classlens.load(model), f"layer {place!r} has weight of type torch.int8", "without quantization")


@pytest.mark.parametrize("place", PLACES[:3])
def test_layers_that_compute_with_other_weights(place: str) -> None:
    model: Any = zoo.build(NAME)
    layer = model.get_submodule(place)
    layer.__class__ = Rounded
    refused(lambda: classlens.load(model), "the description of model", "adds something else" if place != "head" else "")


@pytest.mark.filterwarnings("ignore")
def test_dynamic_quantization_of_torch() -> None:
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("torch has no engine for quantized layers here")
    model = torch.ao.quantization.quantize_dynamic(zoo.build(NAME, torch.float32), {nn.Linear})
    refused(lambda: classlens.load(model), "is quantized", "without quantization")


def test_a_step_with_a_wrong_derivative() -> None:
    """Laws 1 and 2 do not see it; explanations would be wrong."""
    from dataclasses import replace

    from classlens.core.steps import Norm

    class Careless(Norm):
        def vjp(self, x: Tensor, gradient: Tensor) -> Tensor:
            return super().vjp(x, gradient) * 1.01

    view = classlens.load(zoo.build(NAME)).view
    space = view.space
    (norm,) = space.before
    careless = replace(space, before=(Careless(norm.kind, norm.weight, norm.bias, norm.eps),))  # type: ignore[attr-defined]
    wrong = replace(view, readouts=(replace(view.readouts[0], space=careless),))
    refused(lambda: classlens.load(wrong), "the class gradient of block 0 is not that of its class space")
