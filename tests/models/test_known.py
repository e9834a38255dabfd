"""The names that libraries resolve, with families, classes and presence of weights, held to the libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.models import get_model_weights

import classlens
from classlens.errors import ClasslensError
from classlens.models import families
from classlens.models.families import Known


@pytest.fixture(autouse=True)
def _empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HOME", str(tmp_path))


def known() -> dict[str, Known]:
    models = list(families.known())
    found = {model.name: model for model in models}
    assert len(found) == len(models), "a name is listed twice"
    return found


def cached(hub: Path, repository: str, file: str) -> Path:
    """Where a file of the hub lies once it was fetched; the folders are made."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    return folder / "snapshots" / ("0" * 40) / file


@pytest.mark.parametrize(
    ("name", "family", "classes"),
    [
        ("builtin:cifar10", "ViT", 10),
        ("paper:vit-l-16", "paper", 1000),
        ("paper:vit-b-16-cifar100", "paper", 100),
        ("vit_base_patch32_224", "ViT", 1000),
        ("vit_base_patch32_224.augreg_in21k", "ViT", 21843),
        ("deit3_small_patch16_224.fb_in1k", "DeiT-III", 1000),
        ("deit_tiny_distilled_patch16_224.fb_in1k", "DeiT distilled", 1000),
        ("deit_tiny_patch16_224.fb_in1k", "DeiT", 1000),
        ("beit_base_patch16_224.in22k_ft_in22k_in1k", "BEiT", 1000),
        ("beitv2_base_patch16_224.in1k_ft_in1k", "BEiTv2", 1000),
        ("eva_giant_patch14_336.clip_ft_in1k", "EVA", 1000),
        ("eva02_base_patch14_448.mim_in22k_ft_in1k", "EVA-02", 1000),
        ("vit_small_patch14_dinov2.lvd142m", "DINOv2", 0),
        ("vit_small_patch16_dinov3.lvd1689m", "DINOv3", 0),
        ("vit_base_patch16_siglip_224.webli", "SigLIP", 0),
        ("vit_base_patch32_clip_224.openai", "CLIP", 0),
        ("vit_base_patch32_clip_224.openai_ft_in1k", "CLIP", 1000),
        ("vit_relpos_small_patch16_224.sw_in1k", "ViT relative position", 1000),
        ("vit_tiny_r_s16_p8_224.augreg_in21k_ft_in1k", "ViT hybrid", 1000),
        ("torchvision:vit_b_16.IMAGENET1K_SWAG_E2E_V1", "ViT", 1000),
    ],
)
def test_family_and_classes(name: str, family: str, classes: int) -> None:
    model = known()[name]
    assert (model.family, model.classes) == (family, classes)


def test_every_name_is_resolved_by_the_library_that_lists_it() -> None:
    listed: dict[str, set[Any]] = {}
    for model in known().values():
        if " " not in model.name:
            adapter: Any = families.named(model.name)
            if adapter.__name__ not in listed:
                listed[adapter.__name__] = set(adapter.known())
            assert model in listed[adapter.__name__], model.name


def test_every_weight_of_timm_and_torchvision_is_listed() -> None:
    found = known()
    every = {name for name in timm.list_pretrained() if name.startswith(("vit_", "deit", "beit", "eva"))}
    differential = {name for name in every if name.startswith(("vit_dlittle", "vit_dwee", "vit_dpwee"))}
    assert every - set(found) == differential, "attention that is not read"
    assert {f"torchvision:vit_h_14.{weights.name}" for weights in get_model_weights("vit_h_14")} <= set(found)
    assert not any(name.startswith(("resnet", "swin", "convnext")) for name in found)


def test_nothing_is_here_in_empty_caches() -> None:
    assert {model.name for model in known().values() if model.weights == "here"} == {"builtin:cifar10"}
    assert {
        model.name for model in known().values() if model.library == "timm" and model.weights == "needs a file"
    } == {
        "paper:vit-b-16-cifar100",
        "paper:vit-b-16-refinement",
    }


def test_what_is_listed_as_here_loads(tmp_path: Path) -> None:
    name = "test_vit.r160_in1k"
    assert known()[name].weights == "not here"
    with pytest.raises(ClasslensError, match="not on this machine"):
        classlens.load(name)
    model: Any = timm.create_model(name)
    save_file(model.state_dict(), cached(tmp_path / "hub", f"timm/{name}", "model.safetensors"))
    assert known()[name].weights == "here"
    lens = classlens.load(name)
    assert torch.equal(lens.view.space.weight, model.head.weight)


def test_the_paper_follows_timm(tmp_path: Path) -> None:
    name = "vit_base_patch32_224.augreg_in21k_ft_in1k"
    cached(tmp_path / "hub", f"timm/{name}", "model.safetensors").touch()
    here = {model.name for model in known().values() if model.weights == "here"}
    assert here == {"builtin:cifar10", "paper:vit-b-32", name, name.partition(".")[0]}


def test_weights_of_torchvision(tmp_path: Path) -> None:
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "vit_b_32-d86f8d99.pth").touch()
    assert known()["torchvision:vit_b_32.IMAGENET1K_V1"].weights == "here"
    assert known()["torchvision:vit_b_16.IMAGENET1K_V1"].weights == "not here"


def test_openclip(tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    found = known()
    assert not any(name.startswith(("open_clip:RN50", "open_clip:coca", "open_clip:convnext")) for name in found)
    name = "open_clip:ViT-B-32/laion2b_s34b_b79k"
    assert (found[name].classes, found[name].weights) == (None, "not here")
    cached(tmp_path / "hub", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip_model.safetensors").touch()
    assert known()[name].weights == "here"


def test_checkpoints_of_transformers_in_the_cache(tmp_path: Path) -> None:
    pytest.importorskip("transformers", exc_type=ImportError)
    labels = {"0": "cat", "1": "dog", "2": "owl"}
    for repository, kind in (("me/pets", "ViTForImageClassification"), ("me/words", "BertModel")):
        config = cached(tmp_path / "hub", repository, "config.json")
        config.write_text(json.dumps({"architectures": [kind], "id2label": labels}))
    assert known()["hf:me/pets"] == Known("hf:me/pets", "transformers", "ViT", 3, "not here")
    assert "hf:me/words" not in known()
    (config.parents[3] / "models--me--pets" / "snapshots" / ("0" * 40) / "model.safetensors").touch()
    assert known()["hf:me/pets"].weights == "here"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("vit_bse_patch32_224", "'vit_base_patch32_224'"),
        ("cifar10", "'builtin:cifar10'"),
        ("vit-b-32", "'paper:vit-b-32'"),
        ("eva02_bse_patch14_448", "'eva02_base_patch14_448'"),
    ],
)
def test_the_error_for_an_unknown_name(name: str, near: str) -> None:
    with pytest.raises(ClasslensError) as caught:
        classlens.load(name)
    assert all(part in str(caught.value) for part in (repr(name), near, "torchvision", "OpenCLIP", "transformers"))
