"""The built-in models: whole, repeatable, and right about a photo of a cat."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import classlens
from classlens.models import builtin
from classlens.models.builtin import MODELS, cifar10
from classlens.models.builtin.row_quantization import quantize, restore
from tests.refusals import refused

CAT = Path(skimage.__file__).with_name("data") / "chelsea.png"
ALL = pytest.mark.parametrize("name", MODELS)


def stored_weights(name: str) -> dict[str, Tensor]:
    return load_file(str(files(builtin).joinpath(f"{name.removeprefix('builtin:')}.safetensors")))


@ALL
def test_it_is_ready_to_be_used(name: str) -> None:
    model = MODELS[name]
    module = model.trained()
    assert not any(part.training for part in module.modules())
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert all(bool(torch.isfinite(value).all()) for value in module.state_dict().values())
    with torch.no_grad():
        logits = module(torch.zeros(2, 3, model.image_size, model.image_size))
    assert logits.shape == (2, len(model.class_names))


def test_weights_in_half_precision_are_those_in_the_package() -> None:
    stored = stored_weights("builtin:cifar10")
    loaded = MODELS["builtin:cifar10"].trained().state_dict()
    assert all(torch.equal(loaded[name], value.float()) for name, value in stored.items())
    assert {name for name in loaded if not name.endswith("num_batches_tracked")} <= set(stored)


def test_weights_in_eight_bits_are_those_in_the_package() -> None:
    """A literal loop over the rows of every matrix; the steps fill the 8 bits."""
    stored = stored_weights("builtin:photos")
    loaded = MODELS["builtin:photos"].trained().state_dict()
    assert set(loaded) == {name for name in stored if not name.endswith(":step")}
    for name, value in loaded.items():
        whole = stored[name]
        if f"{name}:step" not in stored:
            assert whole.dtype == torch.float16
            assert torch.equal(value, whole.float())
            continue
        assert whole.dtype == torch.int8
        for row, integers, step in zip(value, whole, stored[f"{name}:step"], strict=True):
            assert int(integers.int().abs().max()) == 127
            assert torch.equal(row, integers.float() * step)


def test_eight_bits_are_nearest() -> None:
    """No value is further from its own than half a step, a 254th of the largest of its row."""
    torch.manual_seed(0)
    state = {
        "a.weight": torch.randn(5, 3, 2, 2) * torch.logspace(-3, 2, 5)[:, None, None, None],
        "a.bias": torch.randn(5),
    }
    state["zero.weight"] = torch.zeros(2, 3)
    restored = restore(quantize(state))
    for row, back in zip(state["a.weight"], restored["a.weight"], strict=True):
        assert float((row - back).abs().max()) <= float(row.abs().max()) / 254 * (1 + 1e-5)
    assert torch.equal(restored["a.bias"], state["a.bias"].half().float())
    assert torch.equal(restored["zero.weight"], state["zero.weight"])


@ALL
def test_its_file_is_small(name: str) -> None:
    assert files(builtin).joinpath(f"{MODELS[name].name}.safetensors").stat().st_size <= 8_000_000  # type: ignore[attr-defined]
    assert files(builtin).joinpath(f"{MODELS[name].name}.md").is_file(), "model card"


@ALL
def test_every_load_is_another_module_with_the_same_weights(name: str) -> None:
    first, second = MODELS[name].trained(), MODELS[name].trained()
    with torch.no_grad():
        first.head.weight.zero_()
    assert bool(second.head.weight.any())
    assert bool(MODELS[name].trained().head.weight.any())


@ALL
def test_loading_does_not_disturb_random_numbers(name: str) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    MODELS[name].trained()
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(("name", "classes"), [("cifar10", {"cat"}), ("photos", {"Abyssinian", "Bengal"})])
def test_it_knows_a_cat(name: str, classes: set[str]) -> None:
    trace = classlens.load(f"builtin:{name}").trace(CAT)
    assert trace.predictions.class_name.item() in classes


# 451 × 300 pixels: the shorter side to 32, the longer to 32 · 451 / 300 = 48.1; eight columns fall on each side. And to
# 224, the longer to 336.7; 56 columns fall on each side.
@pytest.mark.parametrize(
    ("name", "size", "first"), [("builtin:cifar10", (48, 32), 8), ("builtin:photos", (336, 224), 56)]
)
def test_its_transform_by_hand(name: str, size: tuple[int, int], first: int) -> None:
    with Image.open(CAT) as image:
        resized = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        middle = resized.crop((first, 0, first + size[1], size[1]))
        pixels = MODELS[name].transform()(image.convert("RGB"))
    mean, std = {
        "builtin:cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
        "builtin:photos": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    }[name]
    expected = (np.asarray(middle) / 255 - mean) / std
    torch.testing.assert_close(pixels, torch.from_numpy(expected).permute(2, 0, 1).float(), atol=1e-5, rtol=0)


def test_classes_in_the_order_of_the_data_set() -> None:
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    assert list(cifar10.CLASS_NAMES) == names.split()


@pytest.mark.parametrize("name", ["", "cifar100", "CIFAR10"])
def test_another_name(name: str) -> None:
    refused(
        lambda: classlens.load(f"builtin:{name}"), repr(f"builtin:{name}"), "give 'builtin:photos' or 'builtin:cifar10'"
    )


def test_its_stem_gives_a_token_for_each_four_by_four_pixels() -> None:
    module = MODELS["builtin:cifar10"].trained()
    stem = module.patch_embed
    assert isinstance(stem, nn.Module)
    assert stem(torch.zeros(1, 3, 32, 32)).shape == (1, 64, 128)
    # Row-major: what changes in the top right corner of the pixels is the last token of the first row.
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[..., :2, 30:] = 1
    with torch.no_grad():
        changed = (stem(pixels) - stem(torch.zeros(1, 3, 32, 32)))[0].abs().sum(dim=1)
    assert int(changed.argmax()) == 7
    assert not bool(changed[16:].any()), "two rows down is out of reach of three 3 × 3 convolutions"
