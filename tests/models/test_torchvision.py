"""torchvision's Vision Transformers: the laws and the explanation against the library's own modules, and names."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.models import VisionTransformer, ViT_B_16_Weights, ViT_B_32_Weights
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.vision_transformer import ConvStemConfig

import classlens
from classlens.core.attention import LOSSES, Loss
from classlens.errors import ClasslensError
from classlens.forward.hooks import watching
from classlens.forward.run import evaluating
from classlens.models import torchvision as adapter
from tests.models.multihead import attention_gradient, pixels, randomize, seen, snapshot

SIZE, CLASSES = (32, 32), 7
TARGET = torch.tensor([2, 6, 0])
SMALL: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "num_layers": 3,
    "num_heads": 2,
    "hidden_dim": 16,
    "mlp_dim": 32,
    "num_classes": CLASSES,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "odd_heads": {"num_heads": 3, "hidden_dim": 24},  # torch's fast path wants an even number
    "wide_eps": {"norm_layer": partial(nn.LayerNorm, eps=0.3)},
    "dropout": {"dropout": 0.3, "attention_dropout": 0.3},
    "conv_stem": {"conv_stem_configs": [ConvStemConfig(8, 3, 2), ConvStemConfig(8, 3, 4)]},
}


def build(variant: str = "plain", dtype: torch.dtype = torch.float64) -> VisionTransformer:
    model = VisionTransformer(**{**SMALL, **VARIANTS[variant]})
    randomize(model)
    made: VisionTransformer = model.to(dtype).eval()
    return made


def refused(call: Callable[[], object], *parts: str) -> None:
    """The call raises one sentence on one line that holds the parts."""
    with pytest.raises(ClasslensError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert ". " not in message, "more than one sentence"
    for part in parts:
        assert part in message


@pytest.mark.parametrize("variant", VARIANTS)
def test_hidden_states_and_logits_are_the_model_s_own(variant: str) -> None:
    model, x = build(variant), pixels(3, SIZE)
    nodes = {f"encoder.layers.encoder_layer_{block}.add_1": str(block) for block in range(3)}
    with torch.no_grad():
        expected = create_feature_extractor(model, nodes)(x)
        logits = model(x)
    lens = classlens.load(model)
    assert lens.checks.law1 < 1e-14
    assert lens.view.prefix == ("cls",)
    assert lens.view.tokens(SIZE).grid == (4, 4)
    recording = lens.trace(x).recording
    for block in range(3):
        found = recording.state("resid_post", block, slice(None))
        torch.testing.assert_close(found, expected[str(block)], rtol=0, atol=1e-12)
    assert logits.abs().max() > 1
    torch.testing.assert_close(lens.view.logits(found), logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(recording.logits, logits, rtol=0, atol=0)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_reproduces_what_the_heads_add(variant: str, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = build(variant), pixels(3, SIZE)
    native: Any = torch._native_multi_head_attention
    calls: list[Any] = []

    def counted(*args: Any) -> Any:
        calls.append(args)
        return native(*args)

    monkeypatch.setattr(torch, "_native_multi_head_attention", counted)
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        view = classlens.load(model).view
        found: dict[str, list[Tensor]] = {"attention": [], "values": [], "attn_out": []}
        receivers = {name: (lambda _, passing, kept=kept: kept.append(passing)) for name, kept in found.items()}
        norms = [block.ln_1 for block in model.encoder.layers]
        with evaluating(model), view.unfused(), watching(view, receivers), seen(norms) as inputs:
            calls.clear()
            model(x)
            assert not calls, "the fast path shows no attention"
        with evaluating(model):
            model(x)
        assert len(calls) == (3 if fast and variant != "odd_heads" else 0), "the fast path is taken where it was"
        calls.clear()
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    for block, attention, values, added, taken in zip(model.encoder.layers, *found.values(), inputs, strict=True):
        with torch.no_grad():
            own = block.self_attention(taken, taken, taken, need_weights=True, average_attn_weights=False)
            made = block.self_attention.out_proj((attention @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(attention, own[1], rtol=0, atol=1e-13)
        torch.testing.assert_close(attention.sum(dim=-1), torch.ones_like(attention[..., 0]), rtol=0, atol=1e-13)
        torch.testing.assert_close(made, added, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_parts_add_up_to_the_logit(variant: str, dtype: torch.dtype, tolerance: float) -> None:
    model, x = build(variant, dtype), pixels(3, SIZE, dtype)
    parts = classlens.load(model).trace(x).attribution(TARGET)
    summed = parts.embed + parts.attention.sum(("block", "head")) + parts.mlp.sum("block") + parts.bias
    with torch.no_grad():
        own = model(x).gather(1, TARGET[:, None])[:, 0]
    np.testing.assert_allclose(summed, own, rtol=0, atol=tolerance)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_explanation_is_the_gradient_through_the_model(variant: str, loss: Loss) -> None:
    model, x = build(variant), pixels(3, SIZE)
    expected = attention_gradient(
        lambda: model(x),
        [block.dropout for block in model.encoder.layers],
        lambda token: model.heads(model.encoder.ln(token)),
        TARGET,
        loss=loss,
        pooled=[0],
    )[..., 1:]
    assert expected.abs().amax(dim=(0, 2, 3)).min() > 1e-4, "every block must have something to agree on"
    found = classlens.load(model).trace(x).explain(TARGET, loss=loss)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-11)


class Stopped(Exception):
    pass


def test_nothing_is_left_behind() -> None:
    model, x = build(dtype=torch.float32), pixels(3, SIZE, torch.float32)
    model.train()
    model.encoder.ln.eval()
    for parameter in model.encoder.layers[0].parameters():
        parameter.requires_grad_(False)

    def output() -> Tensor:
        with evaluating(model):
            result: Tensor = model(x)
        return result

    before, logits = snapshot(model), output()
    lens = classlens.load(model)
    trace = lens.trace(x)
    trace.attribution(TARGET)
    trace.explain(TARGET)

    def stop(*_: object) -> None:
        raise Stopped

    with pytest.raises(Stopped), evaluating(model), lens.view.unfused(), watching(lens.view, {"attention": stop}):
        model(x)
    assert snapshot(model) == before
    assert torch.equal(output(), logits)


@pytest.mark.slow
def test_a_real_architecture() -> None:
    lens = classlens.load("torchvision:vit_b_32", pretrained=False)
    model: Any = lens.view.module
    # torchvision starts with a head of zeros; the laws want something to agree on.
    nn.init.trunc_normal_(model.heads.head.weight, std=0.5)
    lens = classlens.load(model)
    assert (len(lens.view.blocks), lens.view.blocks[0].heads, lens.view.num_classes) == (12, 12, 1000)
    assert lens.checks.law1 == 0
    x = pixels(2, (224, 224), torch.float32)
    trace = lens.trace(x)
    with torch.no_grad():
        logits = model(x)
    assert logits.abs().max() > 5
    last = trace.recording.state("resid_post", 11, slice(None))
    torch.testing.assert_close(lens.view.logits(last), logits, rtol=0, atol=1e-4)
    parts = trace.attribution("predicted")
    summed = parts.embed + parts.attention.sum(("block", "head")) + parts.mlp.sum("block") + parts.bias
    np.testing.assert_allclose(summed, logits.max(dim=1).values, rtol=0, atol=1e-4)


# Names, weights and files. Real names, but small models: five hundred megabytes are not needed to see who is called.


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's builder, with the patches and sizes of the name and few other parameters."""

    def get_model(name: str, weights: None, image_size: int = 224, num_classes: int = 1000, **options: Any) -> Any:
        patch = int(name.rpartition("_")[2])
        shape = {**SMALL, "num_layers": 1, "image_size": image_size, "patch_size": patch, "num_classes": num_classes}
        return VisionTransformer(**{**shape, **options})

    monkeypatch.setattr(adapter, "get_model", get_model)


def trained(name: str = "vit_b_32", **options: Any) -> VisionTransformer:
    model: VisionTransformer = vars(adapter)["get_model"](name, weights=None, **options)
    randomize(model)
    return model.eval()


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's published files: the MLP's layers have the names of its first release."""
    return {
        key.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): value
        for key, value in state.items()
    }


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["vit_b_32", "torchvision:vit_b_32", "torchvision:vit_b_32.IMAGENET1K_V1"])
def test_pretrained_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, model = ViT_B_32_Weights.IMAGENET1K_V1, trained()
    asked: list[Any] = []

    def get_state_dict(self: Any, **_: Any) -> dict[str, Tensor]:
        asked.append(self)
        return old_names(model.state_dict())

    monkeypatch.setattr(type(weights), "get_state_dict", get_state_dict)
    lens = classlens.load(name)
    assert asked == [weights]
    x = pixels(1, (224, 224), torch.float32)
    assert torch.equal(lens.view.run(x), model(x))
    assert lens.classes.names[:2] == ("tench", "goldfish")
    assert lens.view.library == "torchvision"
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 260, 3), dtype=np.uint8))
    assert torch.equal(lens.preprocessing(photo, "photo"), weights.transforms()(photo))
    assert lens.preprocessing.mean == pytest.approx((0.485, 0.456, 0.406))
    assert lens.preprocessing.std == pytest.approx((0.229, 0.224, 0.225))


@pytest.mark.usefixtures("small")
def test_weights_for_another_size(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, model = ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1, trained("vit_b_16", image_size=384)
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *_, **__: model.state_dict())
    lens = classlens.load("vit_b_16.IMAGENET1K_SWAG_E2E_V1")
    assert lens.view.input_size == (384, 384)
    assert lens.preprocessing(Image.new("RGB", (500, 400)), "photo").shape == (3, 384, 384)
    refused(lambda: classlens.load("vit_b_16", num_classes=10), "num_classes is 10", "IMAGENET1K_V1", "1000")
    refused(lambda: classlens.load("vit_b_16", image_size=384), "image_size is 384", "224")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("names", [dict, old_names])
@pytest.mark.parametrize("size", [224, 384, 96])
def test_a_checkpoint_tells_its_classes_and_size(
    size: int, names: Callable[[Any], dict[str, Tensor]], tmp_path: Path
) -> None:
    model = trained(image_size=size, num_classes=5)
    torch.save({"model": names(model.state_dict())}, tmp_path / "mine.pth")
    lens = classlens.load("vit_b_32", checkpoint=tmp_path / "mine.pth")
    x = pixels(2, (size, size), torch.float32)
    assert torch.equal(lens.view.run(x), model(x))
    assert lens.classes.names == tuple(f"class {index}" for index in range(5))
    assert lens.preprocessing(Image.new("RGB", (500, 400)), "photo").shape == (3, size, size)
    assert lens.preprocessing.mean == pytest.approx((0.485, 0.456, 0.406))


@pytest.mark.usefixtures("small")
def test_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "mine.pth"
    torch.save(trained(num_layers=2).state_dict(), file)
    refused(lambda: classlens.load("vit_b_32", checkpoint=file), "mine.pth", "encoder_layer_1")
    torch.save(trained(representation_size=8).state_dict(), file)
    refused(lambda: classlens.load("vit_b_32", checkpoint=file), "mine.pth", "heads.pre_logits.weight")
    refused(lambda: classlens.load("vit_b_32", checkpoint=tmp_path / "none.pth"), "none.pth")


@pytest.mark.usefixtures("small")
def test_random_weights() -> None:
    lens = classlens.load("vit_l_32", pretrained=False, num_classes=3, image_size=64)
    assert lens.view.num_classes == 3
    assert lens.view.input_size == (64, 64)
    assert not lens.view.module.training
    refused(lambda: classlens.load("vit_l_32", pretrained=False, banana=1), "'vit_l_32'", "banana")
    refused(lambda: classlens.load("vit_l_32", pretrained=False, image_size=65), "'vit_l_32'", "indivisible")
    refused(lambda: classlens.load("vit_l_32", pretrained=False, representation_size=8), "representation_size")


@pytest.mark.usefixtures("small")
def test_weights_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def download(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    refused(
        lambda: classlens.load("vit_b_32"),
        "'vit_b_32'",
        ViT_B_32_Weights.DEFAULT.url,
        "checkpoint=FILE",
        "Name or service not known",
    )


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("torchvision:vit_b_61", ["'torchvision:vit_b_61'", "did you mean 'vit_b_16'"]),
        ("torchvision:resnet50", ["'torchvision:resnet50'", "vit_h_14"]),
        ("vit_b_16.IMAGENET1K_V7", ["'IMAGENET1K_V7'", "did you mean 'IMAGENET1K_V1'"]),
    ],
)
def test_unknown_names(name: str, parts: list[str]) -> None:
    refused(lambda: classlens.load(name), *parts)


@pytest.mark.parametrize("name", adapter.NAMES)
def test_every_name_is_torchvision_s_and_not_timm_s(name: str) -> None:
    from classlens.models import families

    assert name in torchvision.models.list_models()
    assert families.named(name) is adapter
    assert families.named(f"torchvision:{name}") is adapter


# Modules that the user holds


def test_a_module_knows_nothing_of_its_classes_or_pixels() -> None:
    lens = classlens.load(build())
    assert lens.classes.names == tuple(f"class {index}" for index in range(CLASSES))
    refused(lambda: lens.trace(Image.new("RGB", (40, 40))), "transform=")
    own = classlens.load(build(), class_names=list("abcdefg"), transform="paper")
    assert own.classes.names[6] == "g"


def test_a_head_that_was_exchanged() -> None:
    model = build()
    model.heads = nn.Linear(16, 4).double()
    assert classlens.load(model).view.num_classes == 4
    model.heads = nn.Sequential(nn.Dropout(0.5), nn.Linear(16, 5)).double()
    assert classlens.load(model).view.num_classes == 5


def _tanh(model: Any) -> Any:
    return VisionTransformer(**{**SMALL, "representation_size": 12})


def _two_layers(model: Any) -> nn.Module:
    model.heads = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    return build_from(model)


def _none(model: Any) -> nn.Module:
    model.heads = nn.Identity()
    return build_from(model)


def _other_attention(model: Any) -> nn.Module:
    model.encoder.layers[1].self_attention = nn.MultiheadAttention(16, 2, add_zero_attn=True, batch_first=True)
    return build_from(model)


def _other_block(model: Any) -> nn.Module:
    model.encoder.layers[1] = nn.TransformerEncoderLayer(16, 2, batch_first=True)
    return build_from(model)


def _other_norm(model: Any) -> nn.Module:
    model.encoder.ln = nn.BatchNorm1d(17)
    return build_from(model)


def _other_mlp(model: Any) -> nn.Module:
    model.encoder.layers[0].mlp = nn.Linear(16, 16)
    return build_from(model)


def build_from(model: nn.Module) -> nn.Module:
    return model.double().eval()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_tanh, "representation_size"),
        (_two_layers, "Linear, ReLU, Linear"),
        (_none, "no layers"),
        (_other_attention, "not plain self-attention"),
        (_other_block, "TransformerEncoderLayer"),
        (_other_norm, "BatchNorm1d"),
        (_other_mlp, "MLP of type Linear"),
        (lambda _: torchvision.models.squeezenet1_1(num_classes=2), "is a SqueezeNet"),
    ],
)
def test_what_is_refused(change: Callable[[Any], nn.Module], reason: str) -> None:
    refused(lambda: classlens.load(change(build())), reason, adapter.SUPPORTED)


def test_a_forward_of_one_s_own_is_noticed() -> None:
    class Doubled(VisionTransformer):  # type: ignore[misc]  # torchvision has no types
        def forward(self, x: Tensor) -> Any:
            return 2 * super().forward(x)

    model = Doubled(**SMALL)
    randomize(model)
    refused(lambda: classlens.load(model.eval()), "Doubled", "misses the model's logits")
