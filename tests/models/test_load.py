"""From a name, a checkpoint or a module to a lens: what comes out, and what is said when it cannot."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import classlens
from tests.refusals import refused
from tests.zoo import randomize

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# A real timm architecture, made small by its own arguments: 4 blocks of image tokens.
SMALL: dict[str, Any] = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3}
NAME = "vit_tiny_patch16_224"


def tiny(**options: Any) -> VisionTransformer:
    """A hand-made module, as a user would hold it: no configuration of timm's."""
    shared = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
    model = VisionTransformer(**{**shared, **options})
    randomize(model)
    return model.eval()


def trained(num_classes: int = 7) -> Any:
    """Stands for a model of `NAME` that somebody trained."""
    model: Any = timm.create_model(NAME, num_classes=num_classes, **SMALL)
    randomize(model)
    return model.eval()


def test_the_builtin_model() -> None:
    lens = classlens.load("builtin:cifar10")
    assert lens.view.name == "builtin:cifar10"
    assert lens.classes.names == CIFAR
    assert lens.view.pooling == "cls"
    assert lens.view.prefix == ("cls",)
    assert len(lens.view.blocks) == 6
    assert {block.heads for block in lens.view.blocks} == {4}
    assert lens.view.input_size == (32, 32)
    assert lens.view.tokens((32, 32)).grid == (8, 8)


def test_a_timm_name_with_options() -> None:
    lens = classlens.load(NAME, pretrained=False, num_classes=7, **SMALL)
    assert lens.view.name == NAME
    assert isinstance(lens.view.module, VisionTransformer)
    assert lens.view.num_classes == 7
    assert lens.classes.names == tuple(f"class {index}" for index in range(7))
    assert lens.view.input_size == (32, 32)
    assert lens.view.tokens((32, 32)).grid == (2, 2)
    assert len(lens.view.blocks) == 2
    assert lens.view.space.weight.shape == (7, 24)


def test_a_size_that_is_not_square() -> None:
    lens = classlens.load(NAME, pretrained=False, num_classes=7, **{**SMALL, "img_size": (48, 32)})
    assert lens.view.input_size == (48, 32)
    assert lens.view.tokens((48, 32)).grid == (3, 2)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"banana": 3}, ["vit_tiny_patch16_224", "banana"]),
        ({"img_size": 8}, ["vit_tiny_patch16_224", "options"]),
        ({"embed_dim": 25}, ["vit_tiny_patch16_224", "options"]),
    ],
)
def test_options_that_timm_does_not_take(options: dict[str, Any], parts: list[str]) -> None:
    refused(lambda: classlens.load(NAME, pretrained=False, num_classes=7, **{**SMALL, **options}), *parts)


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("vit_tinny_patch16_224", "'vit_tiny_patch16_224'"),
        ("vit_bse_patch16_224.augreg_in21k_ft_in1k", "'vit_base_patch16_224.augreg_in21k_ft_in1k'"),
        ("builtin", "'builtin:photos'"),
        ("qqqq", "classlens models"),
        ("weights.pth", "classlens models"),
    ],
)
def test_an_unknown_name_suggests_near_ones(name: str, suggestion: str) -> None:
    refused(lambda: classlens.load(name), repr(name), suggestion)


def test_an_unknown_built_in_model() -> None:
    refused(lambda: classlens.load("builtin:cifar100"), "'builtin:cifar100'", "'builtin:cifar10'")


def test_pretrained_weights_without_a_network() -> None:
    refused(
        lambda: classlens.load("vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
        "'vit_tiny_patch16_224.augreg_in21k_ft_in1k'",
        "https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        "checkpoint=FILE",
    )


def test_a_hub_model_without_a_network() -> None:
    refused(lambda: classlens.load("hf-hub:somebody/some-vit"), "'hf-hub:somebody/some-vit'", "local-dir:FOLDER")


def test_a_pretrained_tag_that_does_not_exist() -> None:
    refused(lambda: classlens.load("vit_tiny_patch16_224.of_my_own"), "'vit_tiny_patch16_224.of_my_own'")


# Checkpoints


def plain(state: dict[str, Tensor], file: Path) -> None:
    torch.save(state, file)


def wrapped(key: str, **others: Any) -> Callable[[dict[str, Tensor], Path], None]:
    return lambda state, file: torch.save({"epoch": 3, key: state, **others}, file)


def prefixed(prefix: str) -> Callable[[dict[str, Tensor], Path], None]:
    return lambda state, file: torch.save({f"{prefix}{name}": value for name, value in state.items()}, file)


def averaged(state: dict[str, Tensor], file: Path) -> None:
    """The averaged weights are the ones that were evaluated; the raw ones beside them are others."""
    raw = {name: value + 1 for name, value in state.items()}
    torch.save({"state_dict": raw, "state_dict_ema": state}, file)


def before_2020(state: dict[str, Tensor], file: Path) -> None:
    torch.save({"state_dict": state}, file, _use_new_zipfile_serialization=False)


FORMATS: dict[str, tuple[str, Callable[[dict[str, Tensor], Path], None]]] = {
    "safetensors": ("model.safetensors", save_file),
    "plain": ("model.pth", plain),
    "any ending": ("weights.bin", plain),
    "state_dict": ("model.pth.tar", wrapped("state_dict")),
    "model": ("model.pt", wrapped("model", optimizer={"lr": 0.1})),
    "DDP": ("model.pth", prefixed("module.")),
    "torch.compile": ("model.pth", prefixed("_orig_mod.")),
    "EMA": ("model.pth", averaged),
    "legacy": ("model.pth", before_2020),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_checkpoint_gives_the_model_that_was_saved(kind: str, tmp_path: Path) -> None:
    name, save = FORMATS[kind]
    source = trained()
    save(source.state_dict(), tmp_path / name)
    lens = classlens.load(NAME, checkpoint=tmp_path / name, **SMALL)
    assert lens.view.num_classes == 7, "read from the head"
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = source(pixels)
    torch.testing.assert_close(torch.from_numpy(lens.trace(pixels).model_logits.values), expected)


def test_a_checkpoint_may_be_given_as_text_and_with_its_number_of_classes(tmp_path: Path) -> None:
    save_file(trained(3).state_dict(), tmp_path / "model.safetensors")
    lens = classlens.load(NAME, checkpoint=str(tmp_path / "model.safetensors"), num_classes=3, **SMALL)
    assert lens.view.num_classes == 3


def test_position_embeddings_of_another_size_are_resized_as_timm_does(tmp_path: Path) -> None:
    source = trained()
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    lens = classlens.load(NAME, checkpoint=tmp_path / "model.safetensors", **{**SMALL, "img_size": 64})
    assert lens.view.tokens((64, 64)).grid == (4, 4)
    loaded = lens.view.module.state_dict()
    resized = loaded.pop("pos_embed")
    torch.testing.assert_close(resized[:, 0], source.pos_embed[:, 0].detach())
    torch.testing.assert_close(resized, resample_abs_pos_embed(source.pos_embed, [4, 4], num_prefix_tokens=1).detach())
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in loaded.items())


def test_a_checkpoint_of_another_model_names_the_first_keys(tmp_path: Path) -> None:
    state = trained().state_dict()
    state["extra.one"] = state.pop("blocks.0.norm1.weight")
    state["extra.two"] = state.pop("blocks.1.norm1.weight")
    save_file(state, tmp_path / "odd.safetensors")
    refused(
        lambda: classlens.load(NAME, checkpoint=tmp_path / "odd.safetensors", **SMALL),
        "odd.safetensors",
        "2 keys of the model are missing, first 'blocks.0.norm1.weight'",
        "2 keys are unexpected, first 'extra.one'",
    )


def test_a_checkpoint_of_another_width_names_both_shapes(tmp_path: Path) -> None:
    wide = timm.create_model(NAME, num_classes=7, **{**SMALL, "embed_dim": 48})
    save_file(wide.state_dict(), tmp_path / "wide.safetensors")
    refused(
        lambda: classlens.load(NAME, checkpoint=tmp_path / "wide.safetensors", **SMALL),
        "wide.safetensors",
        "'cls_token'",
        "[1, 1, 48]",
        "[1, 1, 24]",
    )


def test_a_number_of_classes_that_the_checkpoint_does_not_have(tmp_path: Path) -> None:
    save_file(trained().state_dict(), tmp_path / "model.safetensors")
    refused(
        lambda: classlens.load(NAME, checkpoint=tmp_path / "model.safetensors", num_classes=4, **SMALL),
        "'head.weight'",
        "[7, 24]",
        "[4, 24]",
        "num_classes",
    )


# Class names


def test_class_names_as_given() -> None:
    names = ["ant", "bee", "cow", "dog", "emu"]
    assert classlens.load(tiny(), class_names=names).classes.names == tuple(names)


@pytest.mark.parametrize("count", [0, 4, 6])
def test_class_names_of_another_number(count: int) -> None:
    refused(lambda: classlens.load(tiny(), class_names=["ant"] * count), f"{count} class names", "5 classes")


def test_a_builtin_model_may_be_renamed_but_not_shortened() -> None:
    names = [name.upper() for name in CIFAR]
    assert classlens.load("builtin:cifar10", class_names=names).classes.names[3] == "CAT"
    refused(lambda: classlens.load("builtin:cifar10", class_names=[]), "0 class names", "10 classes")


def test_imagenet_names_come_with_an_imagenet_head() -> None:
    names = classlens.load(NAME, pretrained=False, **SMALL).classes.names
    assert len(names) == 1000
    # Rows 0, 281 and 999 of ILSVRC 2012, as everybody numbers them.
    assert names[0].startswith("tench")
    assert names[281].startswith("tabby")
    assert names[999].startswith("toilet tissue")


def test_the_lists_of_imagenet_names_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold every synset: reading them for each of a thousand classes takes half a minute."""
    save_file(trained(1000).state_dict(), tmp_path / "model.safetensors")
    read: list[str] = []
    original = pkgutil.get_data

    def get_data(package: str, resource: str) -> bytes | None:
        read.append(resource)
        assert len(read) <= 10, "read again and again"
        return original(package, resource)

    monkeypatch.setattr(pkgutil, "get_data", get_data)
    classlens.load(NAME, checkpoint=tmp_path / "model.safetensors", **SMALL)
    assert read, "timm reads its lists elsewhere now: count there"


def test_no_imagenet_names_for_another_head(tmp_path: Path) -> None:
    save_file(trained(7).state_dict(), tmp_path / "model.safetensors")
    assert classlens.load(NAME, checkpoint=tmp_path / "model.safetensors", **SMALL).classes.names[0] == "class 0"
    # A thousand classes of a module that says nothing of ImageNet are just a thousand classes.
    assert classlens.load(tiny(num_classes=1000)).classes.names[999] == "class 999"


# Modules that the user holds


def test_a_module_is_used_as_it_is_and_stays_as_it_was() -> None:
    module = tiny()
    module.train()
    module.blocks[1].eval()
    module.head.weight.requires_grad_(False)
    parameters = dict(module.named_parameters())
    values = {name: value.clone() for name, value in module.state_dict().items()}
    training = {name: part.training for name, part in module.named_modules()}
    wanted = {name: parameter.requires_grad for name, parameter in parameters.items()}
    seeds = torch.get_rng_state()

    lens = classlens.load(module)

    assert lens.view.module is module
    assert lens.view.name == "VisionTransformer"
    after = dict(module.named_parameters())
    assert list(after) == list(parameters)
    assert all(after[name] is parameter for name, parameter in parameters.items())
    assert all(torch.equal(value, values[name]) for name, value in module.state_dict().items())
    assert {name: part.training for name, part in module.named_modules()} == training
    assert {name: parameter.requires_grad for name, parameter in after.items()} == wanted
    assert all(parameter.grad is None for parameter in after.values())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert all(block.attn.fused_attn for block in module.blocks)
    assert torch.equal(torch.get_rng_state(), seeds), "the user's random numbers are the user's"


@pytest.mark.parametrize("options", [{"checkpoint": "model.pth"}, {"num_classes": 5}, {"img_size": 32}])
@pytest.mark.parametrize("model", ["module", "builtin:cifar10"])
def test_what_goes_with_a_timm_name_alone(model: str, options: dict[str, Any]) -> None:
    refused(
        lambda: classlens.load(tiny() if model == "module" else model, **options),
        "checkpoint, num_classes and model options",
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_pass_the_self_check(dtype: torch.dtype) -> None:
    lens = classlens.load(tiny().to(dtype))
    assert lens.view.dtype == dtype
    # Logits in half precision are right to about three digits; random ones here are of order 10.
    assert lens.checks.law2 < {torch.float16: 0.1, torch.bfloat16: 0.8, torch.float64: 1e-12}[dtype]


def test_a_module_of_no_library_that_is_read() -> None:
    refused(lambda: classlens.load(nn.Linear(3, 3)), "'Linear'", "timm")


# Devices


def test_a_device_that_is_there() -> None:
    assert classlens.load(tiny(), device="cpu").view.device == torch.device("cpu")
    assert classlens.load(tiny(), device=torch.device("cpu")).view.device == torch.device("cpu")


@pytest.mark.parametrize("device", ["banana", "", "cuda:99", "hpu", "vulkan"])
def test_a_device_that_is_not_there(device: str) -> None:
    module = tiny()
    refused(lambda: classlens.load(module, device=device), f"device {device!r}", "cpu, cuda or mps")
    assert next(module.parameters()).device == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none() -> None:
    refused(lambda: classlens.load("builtin:cifar10", device="cuda"), "'cuda'", "cpu")
