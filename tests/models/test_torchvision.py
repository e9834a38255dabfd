"""Particulars of torchvision: its fast path, names, weights and files. The rest is in the contract."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.models import VisionTransformer, ViT_B_16_Weights, ViT_B_32_Weights
from torchvision.models.vision_transformer import interpolate_embeddings

import classlens
from classlens.forward.hooks import watching
from classlens.forward.run import evaluating
from classlens.models import torchvision as adapter
from classlens.models.adapter import adapter_of_name
from tests.models.oracles import pixels, randomize
from tests.models.tiny_torchvision import CLASSES, SMALL, build
from tests.refusals import refused


@pytest.mark.parametrize(("variant", "fast"), [("plain", True), ("plain", False), ("odd heads", True)])
def test_torchs_fast_path_is_taken_unless_attention_is_shown(
    variant: str, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = build(variant), pixels(3, (32, 32))
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
        shown: list[Tensor] = []
        with evaluating(model), view.unfused(), watching(view, {"attention": lambda _, x: shown.append(x)}):
            calls.clear()
            model(x)
            assert not calls, "the fast path shows no attention"
        assert len(shown) == 3
        with evaluating(model):
            model(x)
        assert len(calls) == (3 if fast and variant == "plain" else 0)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


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
def test_weights_for_another_size(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    weights, model = ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1, trained("vit_b_16", image_size=384)
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *_, **__: model.state_dict())
    lens = classlens.load("vit_b_16.IMAGENET1K_SWAG_E2E_V1")
    assert lens.view.input_size == (384, 384)
    assert lens.preprocessing(Image.new("RGB", (500, 400)), "photo").shape == (3, 384, 384)
    refused(lambda: classlens.load("vit_b_16", num_classes=10), "num_classes is 10", "IMAGENET1K_V1", "1000")
    with caplog.at_level("WARNING", "classlens"):
        lens = classlens.load("vit_b_16.IMAGENET1K_SWAG_E2E_V1", img_size=224)
    assert lens.view.tokens((224, 224)).grid == (14, 14)
    resized = interpolate_embeddings(224, 16, model.state_dict())["encoder.pos_embedding"]
    assert torch.equal(lens.view.module.state_dict()["encoder.pos_embedding"], resized)
    assert "position embeddings were resampled from 24×24 to 14×14 tokens" in caplog.text
    refused(lambda: classlens.load("vit_b_16", img_size=(224, 160)), "224×160", "squares")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("size", "names"), [(224, dict), (384, old_names), (96, old_names)])
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
    assert name in torchvision.models.list_models()
    assert adapter_of_name(name) is adapter.ADAPTER
    assert adapter_of_name(f"torchvision:{name}") is adapter.ADAPTER


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


def test_a_forward_of_one_s_own_is_noticed() -> None:
    class Doubled(VisionTransformer):  # type: ignore[misc]  # torchvision has no types
        def forward(self, x: Tensor) -> Any:
            return 2 * super().forward(x)

    model = Doubled(**SMALL)
    randomize(model)
    refused(lambda: classlens.load(model.eval()), "Doubled", "misses the model's logits")
