"""The built-in model: whole, repeatable, and right about a photo of a cat."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import classlens
from classlens.models import builtin

CAT = Path(skimage.__file__).with_name("data") / "chelsea.png"


def test_it_is_ready_to_be_used() -> None:
    module = builtin.load("cifar10")
    assert not any(part.training for part in module.modules())
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert all(bool(torch.isfinite(value).all()) for value in module.state_dict().values())
    with torch.no_grad():
        assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_its_weights_are_those_in_the_package() -> None:
    stored = load_file(str(files(builtin).joinpath("cifar10.safetensors")))
    loaded = builtin.load("cifar10").state_dict()
    assert all(torch.equal(loaded[name], value.float()) for name, value in stored.items())
    assert {name for name in loaded if not name.endswith("num_batches_tracked")} <= set(stored)


def test_every_load_is_another_module_with_the_same_weights() -> None:
    first, second = builtin.load("cifar10"), builtin.load("cifar10")
    with torch.no_grad():
        first.head.weight.zero_()
    assert bool(second.head.weight.any())
    assert bool(builtin.load("cifar10").head.weight.any())


def test_loading_does_not_disturb_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    builtin.load("cifar10")
    assert torch.equal(torch.rand(4), expected)


def test_it_knows_a_cat() -> None:
    trace = classlens.load("builtin:cifar10").trace(CAT)
    assert trace.predictions.class_name.item() == "cat"


def test_its_transform_by_hand() -> None:
    # 451 × 300 pixels: the shorter side to 32, the longer to 32 · 451 / 300 = 48.1; eight columns fall on each side.
    with Image.open(CAT) as image:
        middle = image.convert("RGB").resize((48, 32), Image.Resampling.BICUBIC).crop((8, 0, 40, 32))
        pixels = builtin.transform()(image.convert("RGB"))
    expected = (np.asarray(middle) / 255 - [0.4914, 0.4822, 0.4465]) / [0.2470, 0.2435, 0.2616]
    torch.testing.assert_close(pixels, torch.from_numpy(expected).permute(2, 0, 1).float(), atol=1e-5, rtol=0)


def test_classes_in_the_order_of_the_data_set() -> None:
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    assert list(builtin.CLASS_NAMES) == names.split()


@pytest.mark.parametrize("name", ["", "cifar100", "CIFAR10"])
def test_another_name(name: str) -> None:
    with pytest.raises(classlens.ClasslensError, match="builtin:cifar10") as caught:
        builtin.load(name)
    assert repr(f"builtin:{name}") in str(caught.value)


def test_its_stem_gives_a_token_for_each_four_by_four_pixels() -> None:
    module = builtin.load("cifar10")
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
