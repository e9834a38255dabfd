"""Weights within all that people save: every wrapper and prefix gives the tensors of the model that was saved."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import classlens
from classlens.models.weight_search import read_weights
from tests.models.tiny_timm import SMALL
from tests.models.tiny_torchvision import build as build_torchvision
from tests.refusals import refused
from tests.zoo import randomize

NAME = "vit_tiny_patch16_224"
OPTIONS: dict[str, Any] = {**SMALL, "img_size": 32}
State = dict[str, Tensor]


def trained(name: str = NAME, seed: int = 0, **options: Any) -> Any:
    """Stands for a model that somebody trained."""
    model: Any = timm.create_model(name, **{**OPTIONS, **options})
    randomize(model, seed=seed)
    return model.eval()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "timm": trained,
    "timm with registers": lambda: trained("vit_small_patch14_reg4_dinov2", img_size=28),
    "torchvision": lambda: build_torchvision("plain").float(),
}
OTHERS = {"epoch": 3, "lr": 0.1, "rng": torch.get_rng_state(), "names": ["a"], "hyper_parameters": {"width": 24}}
PARTS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {**OTHERS, "state_dict": state},
    "model": lambda state: {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []},
    },
    "model_state_dict": lambda state: {"model_state_dict": state, "scaler": {"scale": 1.0}},
    "nested": lambda state: {"checkpoint": {"weights": {"net": state}}},
    "averaged beside raw": lambda state: {"state_dict": _other(state), "state_dict_ema": state},
    "averaged as model_ema": lambda state: {"model": _other(state), "model_ema": state},
    "averaged in one mapping": lambda state: {"model": {**_under("raw.", _other(state)), **_under("ema.", state)}},
    "the same twice": lambda state: {"model": state, "best": dict(state)},
    "beside other numbers": lambda state: {"state_dict": {**_under("a.", state), "loss.weight": torch.ones(7)}},
}
PREFIXES: dict[str, Callable[[str], str]] = {
    "none": lambda name: name,
    "DataParallel": lambda name: f"module.{name}",
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "both": lambda name: f"module._orig_mod.{name}",
    "Lightning": lambda name: f"model.{name}",
    "net": lambda name: f"net.{name}",
    "backbone": lambda name: f"model.backbone.{name}",
    "Lightning, compiled": lambda name: f"model._orig_mod.{name}",
    "every block compiled": lambda name: name.replace(".mlp", "._orig_mod.mlp"),
    "FSDP": lambda name: f"_fsdp_wrapped_module.{name}".replace(".mlp", "._checkpoint_wrapped_module.mlp"),
}


def _under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def _headless(state: State) -> State:
    return {name: value for name, value in state.items() if "head" not in name}


def _other(state: State) -> State:
    return {name: value + 1 for name, value in state.items()}


@pytest.mark.parametrize("model", MODELS)
def test_every_wrapper_with_every_prefix(model: str, tmp_path: Path) -> None:
    """Ten containers by ten prefixes, read back bit for bit."""
    state, file = MODELS[model]().state_dict(), tmp_path / "file.pth"
    for part, prefix in product(PARTS, PREFIXES):
        torch.save(PARTS[part]({PREFIXES[prefix](name): value for name, value in state.items()}), file)
        found = read_weights(file, state)
        assert list(found.state) == list(state), (part, prefix)
        assert all(torch.equal(found.state[name], value) for name, value in state.items()), (part, prefix)
        assert bool(found.notes) == ((part, prefix) != ("plain", "none")), "what was taken off is said"


def averaged(model: nn.Module) -> Any:
    return AveragedModel(model).state_dict()  # with n_averaged


def lightning(model: nn.Module) -> Any:
    state = _under("model.backbone.", model.state_dict())
    return {"state_dict": {**state, "criterion.weight": torch.ones(7)}, "callbacks": {}, "loops": {"epoch": {}}}


def dropped(model: Any) -> Any:
    model.head = nn.Sequential(nn.Dropout(0.2), model.head).eval()
    return model.state_dict()


def optimized(model: nn.Module) -> Any:
    torch.optim.AdamW(model.parameters())
    return {"model_state_dict": torch.nn.DataParallel(model).state_dict(), "optimizer_state_dict": {"state": {}}}


@pytest.mark.parametrize("save", [averaged, lightning, dropped, optimized])
def test_the_model_that_was_saved_comes_back(save: Callable[[Any], Any], tmp_path: Path) -> None:
    source = trained()
    torch.save(save(source), tmp_path / "file.pth")
    lens = classlens.load(NAME, checkpoint=tmp_path / "file.pth", **{**OPTIONS, "num_classes": None})
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(lens.trace(pixels).model_logits.values), source(pixels))


def test_what_was_taken_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = trained().state_dict()
    file = tmp_path / "best.ckpt"
    torch.save(
        {"state_dict": _other(state), "ema": {f"_orig_mod.{name}": value for name, value in state.items()}}, file
    )
    with caplog.at_level("WARNING", "classlens"):
        classlens.load(NAME, checkpoint=file, **OPTIONS)
    assert "best.ckpt: the weights are those under 'ema', not 'state_dict'" in caplog.text
    assert "_orig_mod. taken off" in caplog.text


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (
            lambda s: {"teacher": s, "student": _other(s)},
            ["several models, under 'teacher', 'student'", "torch.save(torch.load(FILE)['teacher'], \"weights.pth\")"],
        ),
        (
            lambda s: {
                f"{who}.{name}": value for who in ("a", "b") for name, value in (s if who == "a" else _other(s)).items()
            },
            ["several models, under 'a', 'b'", "name.startswith('a.')"],
        ),
        # The model's 7 classes are features of another layer, or the head is one of the wrapper's own.
        (
            lambda s: {
                **{f"backbone.{name}": value for name, value in s.items()},
                "classifier.weight": torch.ones(3, 7),
            },
            ["the model under 'backbone'", "'classifier.weight' of shape [3, 7]", "head="],
        ),
        (lambda s: {"state_dict": {"weight": [1.0]}}, ["holds no state dict"]),
        (lambda s: {name: (value * 9).to(torch.int8) for name, value in s.items()}, ["quantized", "int8"]),
        (lambda s: {**s, "head.weight": torch.ones(7, 24, dtype=torch.int32)}, ["'head.weight' holds int32"]),
        (
            lambda s: {"head.0.weight": torch.ones(9, 24), "head.2.weight": torch.ones(7, 9), **_headless(s)},
            ["'head.weight'", "'head.0.weight'"],
        ),
    ],
)
def test_what_cannot_be_told_is_refused(content: Callable[[State], Any], parts: list[str], tmp_path: Path) -> None:
    torch.save(content(trained().state_dict()), tmp_path / "file.pth")
    refused(lambda: classlens.load(NAME, checkpoint=tmp_path / "file.pth", **OPTIONS), "file.pth", *parts)


# Sizes and channels, from the shapes in a file

SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "smaller than the architecture's": ("vit_small_patch14_dinov2", {"img_size": 42}),
    "registers": ("vit_small_patch14_reg4_dinov2", {"img_size": 56}),
    "no position of [CLS]": ("vit_tiny_patch16_224", {"img_size": 48, "no_embed_class": True}),
    "distillation token": ("deit_tiny_distilled_patch16_224", {"img_size": 48}),
    "no prefix": ("vit_base_patch16_siglip_224", {"img_size": 48}),
    "relative positions": ("beit_base_patch16_224", {"img_size": 48}),
    "relative positions without [CLS]": ("vit_relpos_small_patch16_224", {"img_size": 48, "rel_pos_type": "bias"}),
    "EVA-02": ("eva02_tiny_patch14_224", {"img_size": 42}),
    "patches": ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8}),
    "channels": ("vit_tiny_patch16_224", {"img_size": 48, "in_chans": 6}),
}
TOLD = ("img_size", "patch_size", "in_chans")


@pytest.mark.parametrize("kind", SIZES)
def test_shapes_decide_size_patches_and_channels(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name, options = SIZES[kind]
    source = trained(name, **options)
    torch.save(source.state_dict(), tmp_path / "file.pth")
    left = {**SMALL, **{key: value for key, value in options.items() if key not in TOLD}, "num_classes": None}
    with caplog.at_level("WARNING", "classlens"):
        lens = classlens.load(name, checkpoint=tmp_path / "file.pth", **left)
    size = source.patch_embed.img_size
    assert lens.view.input_size == size
    pixels = torch.randn(2, options.get("in_chans", 3), *size)
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(lens.trace(pixels).model_logits.values), source(pixels))
    assert "resampled" not in caplog.text


def test_another_size_is_resampled_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = trained(img_size=48)
    torch.save(source.state_dict(), tmp_path / "file.pth")
    with caplog.at_level("WARNING", "classlens"):
        lens = classlens.load(NAME, checkpoint=tmp_path / "file.pth", **{**OPTIONS, "img_size": (64, 32)})
    resized = resample_abs_pos_embed(source.pos_embed, [4, 2], num_prefix_tokens=1)
    assert torch.equal(lens.view.module.state_dict()["pos_embed"], resized)
    assert "resampled from 3×3 to 4×2 tokens" in caplog.text


def test_tokens_in_a_rectangle_need_its_sides(tmp_path: Path) -> None:
    source = trained(img_size=(32, 48))
    torch.save(source.state_dict(), tmp_path / "file.pth")
    left = {**SMALL, "num_classes": None}
    refused(
        lambda: classlens.load(NAME, checkpoint=tmp_path / "file.pth", **left),
        "6 image tokens",
        "no square",
        "(32, 48) or (48, 32)",
        "--img-size",
    )
    lens = classlens.load(NAME, checkpoint=tmp_path / "file.pth", img_size=(32, 48), **left)
    assert torch.equal(lens.view.module.state_dict()["pos_embed"], source.pos_embed)


def test_as_many_tokens_in_another_rectangle_are_taken_as_they_are(tmp_path: Path) -> None:
    """196 tokens are 14×14 for timm, which would resample them to 7×28."""
    source = trained(img_size=(112, 448))
    torch.save(source.state_dict(), tmp_path / "file.pth")
    lens = classlens.load(NAME, checkpoint=tmp_path / "file.pth", img_size=(112, 448), **{**SMALL, "num_classes": None})
    assert torch.equal(lens.view.module.state_dict()["pos_embed"], source.pos_embed)


def test_safetensors_are_known_by_their_content(tmp_path: Path) -> None:
    state = trained().state_dict()
    save_file(state, tmp_path / "model.bin")
    assert read_weights(tmp_path / "model.bin", state).state.keys() == state.keys()
