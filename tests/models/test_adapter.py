"""The registry of model libraries: names with families, classes and weights, and a library that is added."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models import get_model_weights
from typer.testing import CliRunner

import classlens
from classlens.cli import app
from classlens.errors import ClasslensError
from classlens.models import timm as timm_adapter
from classlens.models.adapter import (
    Adapter,
    LibraryModel,
    ModelEntry,
    ModelRequest,
    adapter_of_module,
    adapter_of_name,
    list_models,
)
from classlens.models.registry import ADAPTERS
from tests.refusals import refused

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HOME", str(tmp_path))


def entries(library: str | None = None) -> dict[str, ModelEntry]:
    models = list((ADAPTERS[library].list_models or list)() if library else list_models())
    by_name = {model.name: model for model in models}
    assert len(by_name) == len(models), "a name is listed twice"
    return by_name


def cached(hub: Path, repository: str, file: str) -> Path:
    """The path of a file of the hub once it was fetched; the folders are made."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    return folder / "snapshots" / ("0" * 40) / file


FAMILIES = {
    "builtin:photos": ("ViT", 13),
    "builtin:cifar10": ("ViT", 10),
    "paper:vit-l-16": ("paper", 1000),
    "paper:vit-b-16-cifar100": ("paper", 100),
    "vit_base_patch32_224": ("ViT", 1000),
    "vit_base_patch32_224.augreg_in21k": ("ViT", 21843),
    "deit3_small_patch16_224.fb_in1k": ("DeiT-III", 1000),
    "deit_tiny_distilled_patch16_224.fb_in1k": ("DeiT distilled", 1000),
    "deit_tiny_patch16_224.fb_in1k": ("DeiT", 1000),
    "beit_base_patch16_224.in22k_ft_in22k_in1k": ("BEiT", 1000),
    "beitv2_base_patch16_224.in1k_ft_in1k": ("BEiTv2", 1000),
    "eva_giant_patch14_336.clip_ft_in1k": ("EVA", 1000),
    "eva02_base_patch14_448.mim_in22k_ft_in1k": ("EVA-02", 1000),
    "vit_small_patch14_dinov2.lvd142m": ("DINOv2", 0),
    "vit_small_patch16_dinov3.lvd1689m": ("DINOv3", 0),
    "vit_base_patch16_siglip_224.webli": ("SigLIP", 0),
    "vit_base_patch32_clip_224.openai": ("CLIP", 0),
    "vit_base_patch32_clip_224.openai_ft_in1k": ("CLIP", 1000),
    "vit_relpos_small_patch16_224.sw_in1k": ("ViT relative position", 1000),
    "vit_tiny_r_s16_p8_224.augreg_in21k_ft_in1k": ("ViT hybrid", 1000),
    "torchvision:vit_b_16.IMAGENET1K_SWAG_E2E_V1": ("ViT", 1000),
}


def test_families_classes_and_weights() -> None:
    models = entries()
    assert {name: (models[name].family, models[name].classes) for name in FAMILIES} == FAMILIES
    assert {model.library for model in models.values()} <= set(ADAPTERS)
    assert {name for name, model in models.items() if model.weights == "here"} == {"builtin:cifar10", "builtin:photos"}
    files = {name for name, model in models.items() if model.library == "timm" and model.weights == "needs a file"}
    assert files == {"paper:vit-b-16-cifar100", "paper:vit-b-16-refinement"}
    # Every weight of timm and torchvision, and no other architectures.
    weights = {name for name in timm.list_pretrained() if name.startswith(("vit_", "deit", "beit", "eva"))}
    differential = {name for name in weights if name.startswith(("vit_dlittle", "vit_dwee", "vit_dpwee"))}
    assert weights - set(models) == differential, "attention that is not supported"
    assert {f"torchvision:vit_h_14.{weights.name}" for weights in get_model_weights("vit_h_14")} <= set(models)
    assert not any(name.startswith(("resnet", "swin", "convnext")) for name in models)


def test_every_name_is_resolved_by_the_library_that_lists_it() -> None:
    for adapter in ADAPTERS.values():
        for entry in adapter.list_models() if adapter.list_models else ():
            if " " not in entry.name:
                assert adapter_of_name(entry.name) is adapter, entry.name


def test_weights_in_the_cache_are_listed_as_here_and_load(tmp_path: Path) -> None:
    name = "test_vit.r160_in1k"
    assert entries("timm")[name].weights == "not here"
    with pytest.raises(ClasslensError, match="not on this machine"):
        classlens.load(name)
    model: Any = timm.create_model(name)
    save_file(model.state_dict(), cached(tmp_path / "hub", f"timm/{name}", "model.safetensors"))
    assert entries("timm")[name].weights == "here"
    lens = classlens.load(name)
    assert torch.equal(lens.view.space.weight, model.head.weight)


def test_the_paper_follows_timm(tmp_path: Path) -> None:
    name = "vit_base_patch32_224.augreg_in21k_ft_in1k"
    cached(tmp_path / "hub", f"timm/{name}", "model.safetensors").touch()
    here = {model.name for model in list_models() if model.weights == "here"}
    assert here == {"builtin:cifar10", "builtin:photos", "paper:vit-b-32", name, name.partition(".")[0]}


def test_weights_of_torchvision(tmp_path: Path) -> None:
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "vit_b_32-d86f8d99.pth").touch()
    models = entries("torchvision")
    assert models["torchvision:vit_b_32.IMAGENET1K_V1"].weights == "here"
    assert models["torchvision:vit_b_16.IMAGENET1K_V1"].weights == "not here"


def test_openclip(tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    models = entries("open_clip")
    assert not any(name.startswith(("open_clip:RN50", "open_clip:coca", "open_clip:convnext")) for name in models)
    name = "open_clip:ViT-B-32/laion2b_s34b_b79k"
    assert (models[name].classes, models[name].weights) == (None, "not here")
    cached(tmp_path / "hub", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip_model.safetensors").touch()
    assert entries("open_clip")[name].weights == "here"


def test_checkpoints_of_transformers_in_the_cache(tmp_path: Path) -> None:
    pytest.importorskip("transformers", exc_type=ImportError)
    labels = {"0": "cat", "1": "dog", "2": "owl"}
    for repository, kind in (("me/pets", "ViTForImageClassification"), ("me/words", "BertModel")):
        config = cached(tmp_path / "hub", repository, "config.json")
        config.write_text(json.dumps({"architectures": [kind], "id2label": labels}))
    models = entries("transformers")
    assert models["hf:me/pets"] == ModelEntry("hf:me/pets", "transformers", "ViT", 3, "not here")
    assert "hf:me/words" not in models
    (config.parents[3] / "models--me--pets" / "snapshots" / ("0" * 40) / "model.safetensors").touch()
    assert entries("transformers")["hf:me/pets"].weights == "here"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("vit_bse_patch32_224", "'vit_base_patch32_224'"),
        ("cifar10", "'builtin:cifar10'"),
        ("vit-b-32", "'paper:vit-b-32'"),
    ],
)
def test_the_error_for_an_unknown_name(name: str, near: str) -> None:
    refused(lambda: classlens.load(name), repr(name), near, "torchvision", "OpenCLIP", "transformers")


# A library that is added: one record, one row


class Toy(VisionTransformer):
    """A class of the new library, made from one of timm."""


Toy.__module__ = "toy_library.models"


def create(name: str, request: ModelRequest) -> LibraryModel:
    options: dict[str, Any] = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
    return LibraryModel(Toy(**options, num_classes=request.num_classes or 4).eval(), ["ant", "bee", "cow", "dog"])


TOY = Adapter(
    label="Toys",
    about="Models of the toy library",
    names=("toy:NAME",),
    weights="the toy box",
    packages=("toy_library",),
    resolves=lambda name: name.startswith("toy:"),
    create=create,
    describe=timm_adapter.describe,
    list_models=lambda: [ModelEntry("toy:tiny", "toy", "Toy ViT", None, "none published")],
    classes_from="the toy box",
)


@pytest.fixture
def toy() -> Iterator[str]:
    ADAPTERS.register("toy", TOY)
    yield "toy:tiny"
    ADAPTERS.unregister("toy")


def test_a_library_is_one_record_and_one_row(toy: str) -> None:
    lens = classlens.load(toy, pretrained=False)
    assert lens.classes.names == ("ant", "bee", "cow", "dog")
    assert adapter_of_module(lens.view.module, "a") is TOY, "the nearest base class counts"
    assert adapter_of_module(VisionTransformer(depth=0), "a") is ADAPTERS["timm"]
    assert classlens.load(lens.view.module).view.name == "Toy"


def test_lists_messages_and_tables_know_an_added_library(toy: str) -> None:
    refused(lambda: classlens.load("toy_tiny"), " or Toys", "did you mean 'toy:tiny'")
    refused(lambda: classlens.load(nn.Linear(2, 2)), "transformers, Toys")
    result = CliRunner().invoke(app, ["models", "--family", "toy vit"])
    assert result.exit_code == 0
    assert "the toy box" in result.output
    table: Any = runpy.run_path(str(ROOT / "docs" / "models_table.py"))
    assert "| Toys | Models of the toy library | `toy:NAME` | the toy box |\n" in table["libraries"]()
    assert ("toy", "Toy ViT", "`toy:tiny`") in {(row.library, row.family, row.example) for row in rows(table)}


def rows(table: dict[str, Any]) -> Iterator[Any]:
    """The rows of families without an example of their own."""
    table["EXAMPLES"].clear()
    table["ELSEWHERE"].update((entry.library, entry.family) for entry in list_models() if entry.library != "toy")
    yield from table["rows"]()


def test_help_and_documentation_list_every_library() -> None:
    for command in ("check", "inspect"):
        text = " ".join(CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "300"}).output.split())
        assert ", ".join(ADAPTERS) in text, command
    table: Any = runpy.run_path(str(ROOT / "docs" / "models_table.py"))
    assert table["libraries"]() in (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def test_a_module_without_a_description() -> None:
    with pytest.raises(ClasslensError, match="comes without a description: give a ModelView"):
        ADAPTERS["file"].describe(nn.Linear(2, 2), "m")


def test_names_are_known_and_resolved_without_heavy_libraries() -> None:
    program = """
import sys
from classlens.models.registry import ADAPTERS
assert list(ADAPTERS) and "torch" not in sys.modules
from classlens.models.adapter import adapter_of_name
assert adapter_of_name("a/b").label == "transformers"
assert "transformers" not in sys.modules and "open_clip" not in sys.modules
"""
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, **path})
