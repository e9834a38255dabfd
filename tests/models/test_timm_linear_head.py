"""A user's linear head on a backbone of timm, as probes of DINOv2 and DINOv3 are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import classlens
from classlens.errors import ClasslensError
from classlens.lens.verify import verify
from tests import zoo

SMALL: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 0}
# A backbone of timm, its options, and whether its pool is attention.
BACKBONES: dict[str, tuple[dict[str, Any], bool]] = {
    "vit_small_patch14_dinov2": ({**SMALL, "img_size": 28}, False),
    "vit_small_patch14_reg4_dinov2": ({**SMALL, "img_size": 28}, False),
    "vit_small_patch16_dinov3": ({**SMALL, "img_size": 32}, False),
    "vit_base_patch16_siglip_224": ({**SMALL, "img_size": 32}, True),
    "beit_base_patch16_224": ({**SMALL, "img_size": 32}, False),
}


def backbone_of(name: str) -> Any:
    module = timm.create_model(name, **BACKBONES[name][0])
    zoo.randomize(module)
    return module.double().eval()


def linear(width: int, classes: int = 5) -> nn.Linear:
    return nn.Linear(width, classes).double()


def logits_of(backbone: Any, head: nn.Linear, pixels: Tensor) -> Tensor:
    """As somebody trains such a probe, with timm's own words."""
    with torch.no_grad():
        tokens = backbone.forward_features(pixels)
        if head.in_features == 24:
            return head(backbone.forward_head(tokens, pre_logits=True))  # type: ignore[no-any-return]
        patches = tokens[:, backbone.num_prefix_tokens :]
        return head(torch.cat([tokens[:, 0], patches.mean(dim=1)], dim=-1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("width", [24, 48])
@pytest.mark.parametrize("name", BACKBONES)
def test_a_head_of_ones_own(name: str, width: int) -> None:
    backbone, head = backbone_of(name), linear(width)
    if backbone.num_prefix_tokens == 0 and width == 48:
        with pytest.raises(ClasslensError, match="takes 48 numbers: expected 24"):
            classlens.load(backbone, head=head)
        return
    before = zoo.snapshot(backbone)
    lens = classlens.load(backbone, head=head)
    pixels = torch.randn(2, 3, *lens.view.input_size, dtype=torch.float64)
    trace = lens.trace(pixels)
    np.testing.assert_allclose(trace.model_logits.values, logits_of(backbone, head, pixels), atol=1e-12)
    laws = verify(lens.view, pixels)
    assert all(law.holds for law in laws), laws
    assert [law.name for law in laws if law.error is None] == (["attribution"] if BACKBONES[name][1] else [])
    assert zoo.snapshot(backbone) == before
    assert len(lens.view.readouts) == width // 24
    assert lens.classes.names == tuple(f"class {number}" for number in range(5))


def test_each_half_of_the_head_reads_its_own_tokens() -> None:
    """Design: [CLS] is projected with the first half, image tokens with the second, each with the whole bias."""
    backbone, head = backbone_of("vit_small_patch14_reg4_dinov2"), linear(48)
    trace = classlens.load(backbone, head=head).trace(torch.randn(1, 3, 28, 28, dtype=torch.float64))
    (last,) = (x for block, x in trace.recording.walk("resid_post", slice(None)) if block == 1)
    with torch.no_grad():
        normed = backbone.norm(last)
        expected = normed @ head.weight[:, 24:].T + head.bias
        expected[:, 0] = normed[:, 0] @ head.weight[:, :24].T + head.bias
    np.testing.assert_allclose(trace.logits("resid_post").sel(block=1).values, expected, atol=1e-12)


@pytest.mark.parametrize("names", [("weight", "bias"), ("linear.weight", "linear.bias"), ("head.weight",)])
def test_a_head_from_a_file(names: tuple[str, ...], tmp_path: Path) -> None:
    head = nn.Linear(48, 5, bias=len(names) == 2)
    tensors = dict(zip(names, head.parameters(), strict=True))
    save_file({name: value.detach() for name, value in tensors.items()}, tmp_path / "head.safetensors")
    options = BACKBONES["vit_small_patch16_dinov3"][0]
    lens = classlens.load(
        "vit_small_patch16_dinov3",
        head=tmp_path / "head.safetensors",
        pretrained=False,
        **{key: value for key, value in options.items() if key != "num_classes"},
    )
    own: Any = lens.view.module
    torch.testing.assert_close(own.head.weight, head.weight)
    assert (own.head.bias is None) == (len(names) == 1)
    assert lens.preprocessing.transform is not None, "that of the backbone"


def three_tensors(path: Path) -> Any:
    save_file({"a": torch.ones(2, 3), "b": torch.ones(2, 3), "c": torch.ones(2)}, path)
    return path


def bias_that_does_not_fit(path: Path) -> Any:
    save_file({"weight": torch.ones(5, 24), "bias": torch.ones(4)}, path)
    return path


def of_dtype(dtype: torch.dtype, name: str) -> Any:
    def write(path: Path) -> Any:
        tensors = {"weight": torch.ones(5, 24), "bias": torch.ones(5)}
        save_file({**tensors, name: tensors[name].to(dtype)}, path)
        return path

    return write


def torch_file(weight: Tensor) -> Any:
    def write(path: Path) -> Any:
        torch.save({"weight": weight}, path.with_suffix(".pth"))
        return path.with_suffix(".pth")

    return write


BAD = {
    "whole numbers": (of_dtype(torch.int64, "weight"), "has a weight of int64: expected float16, .* or float64"),
    "a bias of flags": (of_dtype(torch.bool, "bias"), "has a bias of bool"),
    "complex numbers": (torch_file(torch.ones(5, 24, dtype=torch.complex64)), "has a weight of complex64"),
    "eight bits": (of_dtype(torch.float8_e5m2, "weight"), "has a weight of float8_e5m2"),
    "sparse": (torch_file(torch.ones(5, 24).to_sparse()), "has a weight of sparse_coo"),
    "no values": (torch_file(torch.ones(5, 24, device="meta")), "has a weight of meta"),
    "not finite": (torch_file(torch.full((5, 24), torch.nan)), "not finite"),
    "no classes": (torch_file(torch.ones(0, 24)), "holds 1 tensors: expected the weight"),
    "another width": (lambda path: linear(30), "takes 30 numbers: expected 24"),
    "a file of a whole model": (three_tensors, "holds 3 tensors"),
    "a bias that does not fit": (bias_that_does_not_fit, r"bias of shape \[4\] for 5 classes"),
    "no file": (lambda path: path / "nope", "is not a file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_head_that_does_not_fit(kind: str, tmp_path: Path) -> None:
    make, reason = BAD[kind]
    with pytest.raises(ClasslensError, match=reason):
        classlens.load(backbone_of("vit_small_patch16_dinov3"), head=make(tmp_path / "head.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_head_keeps_all_its_digits(dtype: torch.dtype, tmp_path: Path) -> None:
    weight = torch.randn(5, 24, dtype=torch.float64).to(dtype)
    save_file({"weight": weight}, tmp_path / "head.safetensors")
    lens = classlens.load(backbone_of("vit_small_patch16_dinov3"), head=tmp_path / "head.safetensors")
    own: Any = lens.view.module
    assert own.head.weight.dtype == torch.float64
    assert torch.equal(own.head.weight, weight.double())


def test_a_head_in_the_place_of_two() -> None:
    module = timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, **SMALL)
    with pytest.raises(ClasslensError, match="has two heads, which one head= cannot replace"):
        classlens.load(module, head=nn.Linear(24, 5))


def test_a_head_beside_a_number_of_classes() -> None:
    with pytest.raises(ClasslensError, match="head= beside num_classes="):
        classlens.load("vit_small_patch16_dinov3", head=linear(24), num_classes=5, pretrained=False)
