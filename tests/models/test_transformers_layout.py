"""Tiny random models of every class of transformers that is read, held against the library's own modules and output."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import classlens
from classlens.errors import ClasslensError
from classlens.forward.hooks import watching
from classlens.forward.run import evaluating
from classlens.models.families import of

transformers: Any = pytest.importorskip("transformers")
interface: Any = pytest.importorskip("transformers.modeling_utils").ALL_ATTENTION_FUNCTIONS

CLASSES = 7
SHARED = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 16, "patch_size": 8}
VIT = {**SHARED, "intermediate_size": 40, "layer_norm_eps": 1e-5}


@dataclass(frozen=True)
class Names:
    """Where the slow twin finds a layer's modules; written out here once more, from transformers' sources."""

    layers: str
    norm: str
    norms: tuple[str, str] = ("layernorm_before", "layernorm_after")
    attention: str = "attention"
    scales: tuple[str, str] | None = None


@dataclass(frozen=True)
class Variant:
    """A model class with a config, and what its tokens and head must look like."""

    kind: str
    options: dict[str, Any]
    names: Names
    prefix: tuple[str, ...] = ("cls",)
    pooled: tuple[int, ...] = (0,)
    """The tokens of the first readout."""
    pooling: str = "cls"
    size: tuple[int, int] = (16, 16)
    grid: tuple[int, int] = (2, 2)
    config: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


_VIT = Names("vit.layers", "vit.layernorm")
_DEIT = Names("deit.layers", "deit.layernorm")
_BEIT = Names("beit.layers", "beit.layernorm", scales=("lambda_1", "lambda_2"))
_SCALES = ("layer_scale1.lambda1", "layer_scale2.lambda1")
_DINO = Names("dinov2.encoder.layer", "dinov2.layernorm", ("norm1", "norm2"), scales=_SCALES)
_REGISTERS = Names(
    "dinov2_with_registers.encoder.layer", "dinov2_with_registers.layernorm", ("norm1", "norm2"), scales=_SCALES
)
_SIGLIP = Names(
    "vision_model.encoder.layers", "vision_model.post_layernorm", ("layer_norm1", "layer_norm2"), "self_attn"
)
_DINO_SHARED = {**SHARED, "mlp_ratio": 2, "drop_path_rate": 0.1}
_PATCHES = (1, 2, 3, 4)

VARIANTS: dict[str, Variant] = {
    "vit": Variant("ViT", VIT, _VIT),
    "vit_no_qkv_bias": Variant("ViT", {**VIT, "qkv_bias": False}, _VIT),
    "vit_not_square": Variant("ViT", {**VIT, "image_size": [24, 16]}, _VIT, size=(24, 16), grid=(3, 2)),
    "vit_one_channel": Variant("ViT", {**VIT, "num_channels": 1}, _VIT),
    "vit_msn": Variant("ViTMSN", VIT, _VIT),
    "deit": Variant("DeiT", VIT, _DEIT, prefix=("cls", "dist")),
    "deit_teacher": Variant("DeiT", VIT, _DEIT, prefix=("cls", "dist"), pooling="cls+dist"),
    "beit": Variant("Beit", {**VIT, "use_relative_position_bias": True}, _BEIT, pooled=_PATCHES, pooling="avg"),
    "beit_shared_bias": Variant(
        "Beit",
        {**VIT, "use_shared_relative_position_bias": True, "use_absolute_position_embeddings": True},
        _BEIT,
        pooled=_PATCHES,
        pooling="avg",
    ),
    "beit_cls": Variant("Beit", {**VIT, "use_mean_pooling": False, "use_relative_position_bias": True}, _BEIT),
    "beit_no_scale": Variant("Beit", {**VIT, "layer_scale_init_value": 0.0}, _BEIT, pooled=_PATCHES, pooling="avg"),
    "beit_other_size": Variant(
        "Beit",
        {**VIT, "use_relative_position_bias": True, "use_absolute_position_embeddings": True},
        _BEIT,
        pooled=(1, 2, 3, 4, 5, 6),
        pooling="avg",
        size=(16, 24),
        grid=(2, 3),
    ),
    "dinov2": Variant("Dinov2", _DINO_SHARED, _DINO, pooling="cls+avg"),
    "dinov2_swiglu": Variant("Dinov2", {**_DINO_SHARED, "use_swiglu_ffn": True}, _DINO, pooling="cls+avg"),
    "dinov2_other_size": Variant("Dinov2", _DINO_SHARED, _DINO, pooling="cls+avg", size=(16, 24), grid=(2, 3)),
    "dinov2_registers": Variant(
        "Dinov2WithRegisters",
        {**_DINO_SHARED, "num_register_tokens": 2},
        _REGISTERS,
        prefix=("cls", "reg0", "reg1"),
        pooling="cls+avg",
    ),
    "dinov2_registers_swiglu": Variant(
        "Dinov2WithRegisters",
        {**_DINO_SHARED, "num_register_tokens": 1, "use_swiglu_ffn": True},
        _REGISTERS,
        prefix=("cls", "reg0"),
        pooling="cls+avg",
    ),
    "siglip": Variant("Siglip", VIT, _SIGLIP, prefix=(), pooled=(0, 1, 2, 3), pooling="avg"),
    "siglip_no_pooling_head": Variant(
        "Siglip", {**VIT, "vision_use_head": False}, _SIGLIP, prefix=(), pooled=(0, 1, 2, 3), pooling="avg"
    ),
}


def build(name: str, dtype: torch.dtype = torch.float64) -> Any:
    """A model of the variant in evaluation mode; float32 and float64 models hold the very same numbers."""
    variant = VARIANTS[name]
    options: dict[str, Any] = {"num_labels": CLASSES, **variant.options}
    if variant.kind == "Siglip":
        text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 49408}
        options = {"num_labels": CLASSES, "vision_config": variant.options, "text_config": text}
    config = getattr(transformers, f"{variant.kind}Config")(**options)
    ending = "WithTeacher" if name == "deit_teacher" else ""
    model = getattr(transformers, f"{variant.kind}ForImageClassification{ending}")(config)
    randomize(model)
    return model.to(dtype).eval()


def randomize(model: nn.Module, seed: int = 0) -> None:
    """Draw every parameter anew: logits come out of order 10, attention neither flat nor one-hot."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "classifier.weight" in name:
                noise = 0.7 * noise
            elif "position" not in name and parameter.ndim in (2, 4):
                noise = 1.2 * noise / parameter[0].numel() ** 0.5
            elif ("norm" in name and name.endswith("weight")) or "lambda" in name:
                noise = 1 + 0.4 * noise
            else:
                noise = 0.5 * noise
            parameter.copy_(noise)


def pixels(name: str, dtype: torch.dtype = torch.float64, images: int = 2) -> Tensor:
    variant = VARIANTS[name]
    shape = (images, variant.options.get("num_channels", 3), *variant.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


TARGETS = torch.tensor([2, 5])


def tensor(values: Any) -> Tensor:
    return torch.from_numpy(values.values)


@torch.no_grad()
def logits(model: Any, x: Tensor) -> Tensor:
    out: Tensor = model(x).logits
    return out


# The slow twin: transformers' own modules, called one by one.


def at(root: Any, path: str) -> Any:
    return reduce(getattr, path.split("."), root)


def first(output: Any) -> Tensor:
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


def bias_of(model: Any, layer: Any, name: str, count: int) -> dict[str, Tensor]:
    """BEiT's position bias, which its attention takes as a mask."""
    variant = VARIANTS[name]
    if variant.kind != "Beit":
        return {}
    makers = [part for part in (model.beit.shared_position_bias, layer.relative_position_bias) if part is not None]
    return {"attention_mask": sum(part(variant.grid, False, dim_size=count) for part in makers)} if makers else {}


def attention_sublayer(model: Any, number: int, x: Tensor, name: str) -> Tensor:
    names = VARIANTS[name].names
    layer = at(model, names.layers)[number]
    raw = first(at(layer, names.attention)(at(layer, names.norms[0])(x), **bias_of(model, layer, name, x.shape[1])))
    return raw if names.scales is None else raw * at(layer, names.scales[0])


def mlp_sublayer(model: Any, number: int, x: Tensor, name: str) -> Tensor:
    names = VARIANTS[name].names
    layer = at(model, names.layers)[number]
    raw: Tensor = layer.mlp(at(layer, names.norms[1])(x))
    return raw if names.scales is None else raw * at(layer, names.scales[1])


def token_logits(model: Any, x: Tensor, name: str, *, second: bool) -> Tensor:
    """One token through the norms and the part of the head that its kind goes through."""
    x = at(model, VARIANTS[name].names.norm)(x)
    kind = VARIANTS[name].kind
    if kind == "Beit" and model.beit.pooler.layernorm is not None:
        x = model.beit.pooler.layernorm(x)
    if kind.startswith("Dinov2"):
        columns = slice(24, 48) if second else slice(0, 24)
        return F.linear(x, model.classifier.weight[:, columns], model.classifier.bias)
    if name == "deit_teacher":
        head = model.distillation_classifier if second else model.cls_classifier
    else:
        head = model.classifier
    out: Tensor = head(x)
    return out


def readouts(name: str, count: int) -> list[tuple[Sequence[int], float, bool]]:
    """Which tokens each head (or half of a head) pools, its weight, and whether it is the second."""
    variant = VARIANTS[name]
    if variant.kind.startswith("Dinov2"):
        return [((0,), 1.0, False), (range(len(variant.prefix), count), 1.0, True)]
    if name == "deit_teacher":
        return [((0,), 0.5, False), ((1,), 0.5, True)]
    return [(variant.pooled, 1.0, False)]


@contextmanager
def attention_by(model: Any, function: Any) -> Iterator[None]:
    """The model with an attention function of the test's own, as transformers offers it."""
    interface["of a test"] = function
    configs = [module.config for module in model.modules() if hasattr(module, "config")]
    before = [config._attn_implementation for config in configs]
    for config in configs:
        config._attn_implementation = "of a test"
    try:
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation
        del interface["of a test"]


def loss_of(found: Tensor, target: Tensor, loss: str) -> Tensor:
    if loss == "cross_entropy":
        return F.cross_entropy(found, target, reduction="sum")
    if loss == "double_softmax":
        return F.cross_entropy(F.softmax(found, dim=-1), target, reduction="sum")
    return -found[torch.arange(len(found)), target].sum()


@pytest.mark.parametrize("name", VARIANTS)
def test_tokens_and_head(name: str) -> None:
    variant = VARIANTS[name]
    lens = classlens.load(build(name))
    tokens = lens.view.tokens(variant.size)
    assert (tokens.prefix, tokens.grid) == (variant.prefix, variant.grid)
    assert lens.view.pooling == variant.pooling
    assert tuple(range(*lens.view.pooled.indices(tokens.count))) == variant.pooled
    assert {block.heads for block in lens.view.blocks} == {3}
    assert lens.view.num_classes == CLASSES
    assert lens.view.library == "transformers"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", VARIANTS)
def test_laws_1_to_3(name: str, dtype: torch.dtype) -> None:
    model, x = build(name, dtype), pixels(name, dtype)
    own = logits(model, x)
    assert own.abs().max() > 3
    trace = classlens.load(model).trace(x)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    pre, attn, mid, mlp, post = (
        tensor(trace.logits(site)) for site in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
    )
    assert pre.shape == attn.shape == mid.shape == mlp.shape == post.shape

    states = [recorded for _, recorded in trace.recording.walk("resid_post", slice(None))]
    assert (trace.recording.view.logits(states[-1]) - own).abs().max() < tolerance

    parts = trace.attribution(TARGETS)
    total = parts.embed + parts.attention.sum(("block", "head")) + parts.mlp.sum("block") + parts.bias
    assert (tensor(total) - own[torch.arange(2), TARGETS]).abs().max() < tolerance


@pytest.mark.parametrize("name", VARIANTS)
def test_hidden_states_are_those_the_library_gives(name: str) -> None:
    model, x = build(name), pixels(name)
    recording = classlens.load(model).trace(x).recording
    with torch.no_grad():
        expected = copy.deepcopy(model)(x, output_hidden_states=True).hidden_states
    assert len(expected) == 4
    for site, offset in (("resid_pre", 0), ("resid_post", 1)):
        for block, found in recording.walk(site, slice(None)):
            torch.testing.assert_close(found, expected[block + offset], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_sublayer_outputs_are_what_is_added(name: str) -> None:
    model, x = build(name), pixels(name)
    recording = classlens.load(model).trace(x).recording
    pre, mid = (dict(recording.walk(site, slice(None))) for site in ("resid_pre", "resid_mid"))
    for block in range(3):
        attn, mlp = recording.activation("attn_out", block), recording.activation("mlp_out", block)
        torch.testing.assert_close(attn, attention_sublayer(model, block, pre[block], name), rtol=0, atol=1e-12)
        torch.testing.assert_close(mlp, mlp_sublayer(model, block, mid[block], name), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_each_token_is_projected_as_its_kind_is_read(name: str) -> None:
    model, x = build(name), pixels(name)
    trace = classlens.load(model).trace(x)
    prefix = len(VARIANTS[name].prefix)
    found = tensor(trace.logits("mlp_out"))
    for block in range(3):
        added = trace.recording.activation("mlp_out", block)
        patches = token_logits(model, added[:, prefix:], name, second=name != "deit_teacher")
        torch.testing.assert_close(found[:, block, prefix:], patches, rtol=0, atol=1e-10)
        if prefix:
            cls = token_logits(model, added[:, 0], name, second=False)
            torch.testing.assert_close(found[:, block, 0], cls, rtol=0, atol=1e-10)
    if name == "deit_teacher":
        dist = model.distillation_classifier(model.deit.layernorm(trace.recording.activation("mlp_out", 1)[:, 1]))
        torch.testing.assert_close(found[:, 1, 1], dist, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", VARIANTS)
def test_attention_rows_sum_to_one_and_make_the_heads(name: str) -> None:
    model, x = build(name), pixels(name)
    view = of(model, name).view(model, name)
    seen: dict[str, list[Tensor]] = {"attention": [], "values": []}
    joined: list[Tensor] = []
    projections = [
        module for path, module in model.named_modules() if path.endswith(("o_proj", "out_proj", "output.dense"))
    ][:3]
    assert len(projections) == 3
    handles = [module.register_forward_pre_hook(lambda _, args: joined.append(args[0])) for module in projections]
    receivers = {key: (lambda _, passing, kept=kept: kept.append(passing)) for key, kept in seen.items()}
    with evaluating(model), view.unfused(), watching(view, receivers):
        in_steps = view.run(x)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(in_steps, logits(model, x), rtol=0, atol=1e-11)
    assert [len(kept) for kept in (*seen.values(), joined)] == [3, 3, 3]
    for weights, values, expected in zip(seen["attention"], seen["values"], joined, strict=True):
        assert weights.shape == (2, 3, x_count := expected.shape[1], x_count)
        assert weights.min() > 0
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]), rtol=0, atol=1e-12)
        torch.testing.assert_close((weights @ values).transpose(1, 2).flatten(2), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", ["cross_entropy", "logit", "double_softmax"])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_explanation_is_the_gradient_through_the_original_model(name: str, loss: Any) -> None:
    model, x = build(name), pixels(name)
    variant = VARIANTS[name]
    trace = classlens.load(model).trace(x)
    found = tensor(trace.explain(TARGETS, loss=loss)).double()
    prefix = len(variant.prefix)
    for block, state in trace.recording.walk("resid_pre", slice(None)):
        expected = torch.zeros(2, 3, trace.recording.tokens.count, dtype=torch.float64)
        count = trace.recording.tokens.count
        parts = [
            (query, weight / len(pooled), second)
            for pooled, weight, second in readouts(name, count)
            for query in pooled
        ]
        for query, weight, second in parts:
            leaves: list[Tensor] = []

            def attend(
                _: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, *, scaling: float, kept: Any = leaves, **__: Any
            ) -> tuple[Tensor, None]:
                scores = q @ k.transpose(-2, -1) * scaling + (0 if mask is None else mask)
                kept.append(scores.softmax(dim=-1).detach().requires_grad_())
                return (kept[-1] @ v).transpose(1, 2), None

            with attention_by(model, attend), torch.enable_grad():
                added = attention_sublayer(model, block, state, name)
                lost = loss_of(token_logits(model, added[:, query], name, second=second), TARGETS, loss)
                (gradient,) = torch.autograd.grad(lost, leaves)
            expected -= gradient[:, :, query] * weight
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(found[:, block], expected[..., prefix:], rtol=1e-6, atol=1e-9)


# Law 4


def snapshot(model: Any) -> Any:
    """All that must be the same afterwards."""
    return {
        "hooks": sum(
            len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
            for module in model.modules()
        ),
        "training": [module.training for module in model.modules()],
        "attention": [m.config._attn_implementation for m in model.modules() if hasattr(m, "config")],
        "registry": sorted(interface),
        "parameters": [(id(p), p._version, p.requires_grad, p.grad) for p in model.parameters()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
        "config": model.config.to_dict(),
    }


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["vit", "deit_teacher", "beit", "dinov2_registers", "siglip"])
def test_nothing_is_left_behind(name: str, implementation: str) -> None:
    model, x = build(name, torch.float32), pixels(name, torch.float32)
    model.set_attn_implementation(implementation)
    own = logits(model, x)
    model.train()
    next(model.children()).eval()
    next(model.parameters()).requires_grad_(False)
    before = snapshot(model)
    trace = classlens.load(model).trace(x)
    trace.explain(1)
    trace.attribution(1)
    assert snapshot(model) == before

    view = trace.recording.view

    class Halt(Exception):
        """Raised in the middle of a pass."""

    def halt(block: int, _: Tensor) -> None:
        if block == 1:
            raise Halt

    with suppress(Halt), evaluating(model), view.unfused(), watching(view, {"attention": halt}):
        view.run(x)
        pytest.fail("the body went on")
    assert snapshot(model) == before
    assert torch.equal(logits(model.eval(), x), own)


def test_steps_within_steps() -> None:
    one, other = build("vit"), build("siglip")
    views = [of(model, "m").view(model, "m") for model in (one, one, other)]
    before = snapshot(one), snapshot(other)
    with evaluating(one), evaluating(other), views[0].unfused():
        with views[1].unfused(), views[2].unfused():
            views[2].run(pixels("siglip"))
        views[0].run(pixels("vit"))
    assert (snapshot(one), snapshot(other)) == before


def test_fused_attention_stays_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    fused = F.scaled_dot_product_attention

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(1)
        return fused(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    trace = classlens.load(build("beit")).trace(pixels("beit"))
    trace.explain(1)
    assert len(calls) == 6, "three blocks in the self-check, three in the trace"
    trace.attribution(1)
    assert len(calls) == 6


# Modules that a user holds


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["vit", "beit", "dinov2"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    lens = classlens.load(build(name, dtype))
    assert lens.view.dtype == dtype
    lens.trace(pixels(name, dtype)).attribution(1)


def test_a_tuple_in_place_of_a_named_output() -> None:
    model, x = build("siglip"), pixels("siglip")
    own = logits(model, x)
    model.config.return_dict = False
    torch.testing.assert_close(tensor(classlens.load(model).trace(x).model_logits), own)


def test_a_class_made_from_one_that_is_read() -> None:
    base = type(build("vit"))
    model = type("Mine", (base,), {"__module__": "mine"})(build("vit").config)
    randomize(model)
    assert classlens.load(model).view.name == "Mine"


def test_sizes() -> None:
    vit, dinov2 = classlens.load(build("vit")), classlens.load(build("dinov2"))
    with pytest.raises(ClasslensError, match="16×16"):
        vit.trace(torch.zeros(1, 3, 16, 24))
    assert dinov2.trace(torch.zeros(1, 3, 26, 32)).rank("resid_post", 1).shape == (1, 3, 1 + 3 * 4)
    with pytest.raises(ClasslensError, match="less than one patch"):
        dinov2.trace(torch.zeros(1, 3, 4, 32))


def refused(model: nn.Module, *parts: str) -> None:
    """The model is refused in one sentence that holds the parts and says what is supported."""
    with pytest.raises(ClasslensError) as caught:
        classlens.load(model)
    message = str(caught.value)
    assert "\n" not in message
    assert ". " not in message, "more than one sentence"
    for part in (*parts, "ViTForImageClassification", "SiglipForImageClassification"):
        assert part in message


def test_other_models_of_the_library() -> None:
    swin = transformers.SwinConfig(image_size=32, embed_dim=8, depths=[1], num_heads=[1], window_size=2, num_labels=3)
    refused(transformers.SwinForImageClassification(swin), "is a SwinForImageClassification")
    refused(transformers.ViTModel(transformers.ViTConfig(**VIT)), "is a ViTModel")


def test_heads_that_are_not_one_linear_layer() -> None:
    refused(transformers.ViTForImageClassification(transformers.ViTConfig(**VIT, num_labels=0)), "no classification")
    model = build("vit")
    model.classifier = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    refused(model, "classifier of type Sequential")


def test_changed_layers() -> None:
    class Adapted(nn.Linear):
        """Stands for LoRA, quantized weights and the like."""

    model = build("vit")
    model.vit.layers[1].mlp.fc2 = Adapted(40, 24)
    refused(model, "mlp.fc2 of type Adapted")

    model = build("vit")
    model.vit.layers[0].attention.__class__ = type("Mine", (type(model.vit.layers[0].attention),), {})
    refused(model, "has a Mine")

    model = build("vit")
    model.vit.layernorm = nn.RMSNorm(24).double()
    refused(model, "normalizes with RMSNorm")


def test_attention_that_may_be_no_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("vit")
    monkeypatch.setitem(interface, "sigmoid", lambda *_, **__: None)
    model.config._attn_implementation = "sigmoid"
    refused(model, "'sigmoid'", "sdpa")


def test_a_layer_of_another_release() -> None:
    model = build("vit")
    model.vit.layers[0].attention.o_proj = None
    refused(model, "attention.o_proj", "release")


@pytest.mark.slow
def test_a_real_size() -> None:
    model = transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000)).eval()
    model.classifier.reset_parameters()
    with torch.no_grad():
        model.classifier.weight.mul_(20)
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    x = torch.randn(1, 3, 224, 224)
    lens = classlens.load(model)
    assert lens.view.tokens((224, 224)).grid == (14, 14)
    assert len(lens.view.blocks) == 12
    own = logits(model, x)
    trace = lens.trace(x)
    assert (trace.recording.view.logits(trace.recording.state("resid_post", 11, slice(None))) - own).abs().max() < 1e-4
    parts = trace.attribution(281)
    total = parts.embed + parts.attention.sum(("block", "head")) + parts.mlp.sum("block") + parts.bias
    assert abs(float(total[0]) - float(own[0, 281])) < 1e-4
