"""The paper's models by name: the table against timm's registry, files of weights, transforms written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor

import classlens
from classlens.errors import ClasslensError
from classlens.models import paper

SMALL: dict[str, Any] = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3}
CIFAR, REFINEMENT = "paper:vit-b-16-cifar100", "paper:vit-b-16-refinement"
# Width, number of blocks and heads, side of a patch, rows of the head: from the papers that introduced the models.
SHAPES = {
    "paper:vit-b-32": (768, 12, 12, 32, 1000),
    "paper:vit-b-16": (768, 12, 12, 16, 1000),
    "paper:vit-l-16": (1024, 24, 16, 16, 1000),
    "paper:vit-b-16-miil": (768, 12, 12, 16, 1000),
    CIFAR: (768, 12, 12, 16, 100),
    REFINEMENT: (768, 12, 12, 16, 1000),
    "paper:vit-b-16-gap": (768, 12, 12, 16, 1000),
}


def picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((400, 300), Image.Resampling.BICUBIC)


def small(name: str) -> classlens.Lens:
    return classlens.load(name, pretrained=False, **SMALL)


def trained(name: str, classes: int) -> Any:
    torch.manual_seed(1)
    return timm.create_model(paper.MODELS[name].timm, num_classes=classes, **SMALL).eval()


def refused(name: str, *parts: str, **given: Any) -> str:
    with pytest.raises(ClasslensError) as caught:
        classlens.load(name, **given)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in (repr(name), *parts)), message
    return message


@pytest.mark.parametrize("name", SHAPES)
def test_the_table_names_the_architectures(name: str) -> None:
    model = paper.MODELS[name]
    with torch.device("meta"):
        module: Any = timm.create_model(model.timm, num_classes=model.classes)
    attention = module.blocks[0].attn
    found = (module.embed_dim, len(module.blocks), attention.num_heads, module.patch_embed.patch_size[0])
    assert (*found, len(module.head.weight)) == SHAPES[name]
    assert module.patch_embed.img_size == (224, 224)
    assert module.global_pool == ("avg" if name.endswith("gap") else "token")


def test_the_table_names_weights_of_timm_or_a_file() -> None:
    assert set(paper.MODELS) == set(SHAPES)
    published = set(timm.list_pretrained())
    for name, model in paper.MODELS.items():
        assert (model.timm in published) == (model.file is None), name
    assert {name for name, model in paper.MODELS.items() if model.file} == {CIFAR, REFINEMENT}


@pytest.mark.parametrize("name", SHAPES)
def test_name_and_classes(name: str) -> None:
    lens = small(name)
    assert lens.view.name == name
    assert lens.view.num_classes == SHAPES[name][-1]
    expected = ("class 0", "class 7") if name == CIFAR else ("tench, Tinca tinca", "cock")
    assert (lens.classes.names[0], lens.classes.names[7]) == expected


def half(image: Image.Image) -> Tensor:
    """Resize without a crop on 8-bit pixels, then from -1 to 1: the reference's processor, written out."""
    pixels = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float64) / 255
    return torch.from_numpy((pixels - 0.5) / 0.5).permute(2, 0, 1).float()


def refined(image: Image.Image) -> Tensor:
    """The shorter side to 32 · 256 / 224, bicubic, the center, ImageNet's mean and standard deviation."""
    width, height = image.size
    image = image.resize((int(37 * width / height), 37), Image.Resampling.BICUBIC)
    left, top = round((image.width - 32) / 2), round((37 - 32) / 2)
    pixels = np.asarray(image.crop((left, top, left + 32, top + 32)), dtype=np.float64) / 255
    scaled = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return torch.from_numpy(scaled).permute(2, 0, 1).float()


def own(image: Image.Image) -> Tensor:
    model: Any = timm.create_model("vit_base_patch16_224_miil.in21k_ft_in1k", **SMALL)
    pixels: Any = create_transform(**{**resolve_model_data_config(model), "input_size": (3, 32, 32)})(image)
    assert isinstance(pixels, Tensor)
    return pixels


@pytest.mark.parametrize("transform", [None, "paper"])
@pytest.mark.parametrize("name", SHAPES)
def test_the_transform(name: str, transform: Any) -> None:
    lens = classlens.load(name, pretrained=False, transform=transform, **SMALL)
    oracle = {"paper:vit-b-16-miil": own, REFINEMENT: refined}.get(name, half)
    assert lens.preprocessing.transform is not None
    found = lens.preprocessing.transform(picture())
    torch.testing.assert_close(found, oracle(picture()), atol=1e-5, rtol=0)


def test_the_refinement_checkpoint(tmp_path: Path) -> None:
    model = trained(REFINEMENT, 1000)
    extra = {"transformerheads.0.conv.weight": torch.ones(2), "transformerheads.10.token_fc.bias": torch.ones(3)}
    torch.save({"epoch": 3, "state_dict": {**model.state_dict(), **extra}}, tmp_path / "deit_base_trm.pth")
    lens = classlens.load(REFINEMENT, checkpoint=tmp_path / "deit_base_trm.pth", **SMALL)
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(lens.view.module(pixels), model(pixels))

    torch.save({"state_dict": {**model.state_dict(), "more.weight": torch.ones(2)}}, tmp_path / "other.pth")
    refused(REFINEMENT, "'more.weight'", checkpoint=tmp_path / "other.pth", **SMALL)
    torch.save({**trained("paper:vit-b-16", 1000).state_dict(), **extra}, tmp_path / "plain.pth")
    refused("paper:vit-b-16", "transformerheads", checkpoint=tmp_path / "plain.pth", **SMALL)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_the_cifar100_checkpoint(tmp_path: Path, prefix: str) -> None:
    model = trained(CIFAR, 100)
    torch.save({prefix + key: value for key, value in model.state_dict().items()}, tmp_path / "cifar.pt")
    lens = classlens.load(CIFAR, checkpoint=tmp_path / "cifar.pt", **SMALL)
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(lens.view.module(pixels), model(pixels))

    torch.save(trained(CIFAR, 1000).state_dict(), tmp_path / "imagenet.pt")
    refused(CIFAR, "'head.weight'", "[1000, 24]", "[100, 24]", checkpoint=tmp_path / "imagenet.pt", **SMALL)


def test_a_checkpoint_for_a_model_of_timm(tmp_path: Path) -> None:
    model = trained("paper:vit-b-16-gap", 1000)
    torch.save(model.state_dict(), tmp_path / "gap.pth")
    lens = classlens.load("paper:vit-b-16-gap", checkpoint=tmp_path / "gap.pth", **SMALL)
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(lens.view.module(pixels), model(pixels))


def test_the_file_that_is_needed() -> None:
    refused(CIFAR, "vit_base_patch16_224-CIFAR100.pt", "github.com/martinagvilas/vit-cls_emb", "checkpoint=FILE")
    refused(REFINEMENT, "/releases/download/v0/deit_base_trm.pth", "--checkpoint FILE")


def test_weights_of_timm_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    refused(
        "paper:vit-b-32",
        "model.safetensors of https://huggingface.co/timm/vit_base_patch32_224.augreg_in21k_ft_in1k",
        "checkpoint=FILE",
        **SMALL,
    )


def test_an_unknown_name() -> None:
    message = refused("paper:vit-b16", "did you mean", "'paper:vit-b-16'")
    assert all(name in message for name in SHAPES)
