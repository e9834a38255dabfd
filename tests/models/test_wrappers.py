"""Modules around a model are taken off and said, or named with the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torch.optim.swa_utils import AveragedModel

import classlens
from tests import zoo
from tests.refusals import refused


def model() -> Any:
    return zoo.build("cls", torch.float32)


class LitModel(nn.Module):
    """As people wrap a model for training."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = nn.CrossEntropyLoss()
        self.net = model()

    def forward(self, pixels: torch.Tensor) -> Any:
        return self.net(pixels)


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, AveragedModel, torch.compile, lambda inner: nn.DataParallel(AveragedModel(inner))]
)
def test_wrappers_of_torch_are_taken_off(
    wrap: Callable[[nn.Module], nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    inner = model()
    with caplog.at_level("WARNING", "classlens"):
        lens = classlens.load(wrap(inner))
    pixels = torch.randn(2, 3, *lens.view.input_size)
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(lens.trace(pixels).model_logits.values), inner(pixels))


def test_what_was_taken_off_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "classlens"):
        classlens.load(nn.DataParallel(model()))
    assert caplog.messages == ["DataParallel around the model taken off"]


def traced() -> nn.Module:
    class Doubled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    return torch.fx.symbolic_trace(Doubled())


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (LitModel, ["'LitModel'", "its part 'net' is one", "model.net", "ModelView"]),
        (lambda: nn.Sequential(nn.Identity(), model()), ["its part '1' is one"]),
        (traced, ["graph of operations", "from before"]),
        (lambda: nn.Linear(3, 3), ["'Linear'", "describe yours with a ModelView"]),
    ],
)
def test_what_stays_around_a_model_is_named(make: Callable[[], nn.Module], parts: list[str]) -> None:
    refused(lambda: classlens.load(make()), *parts)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_torchscript_program() -> None:
    refused(lambda: classlens.load(torch.jit.script(nn.ReLU())), "TorchScript program", "state_dict()")


def test_a_model_without_values_says_so() -> None:
    with torch.device("meta"):
        empty = timm.create_model("test_vit")
    refused(lambda: classlens.load(empty), "no values in 'cls_token'", "meta device", "set_default_device")


def test_a_head_of_dropout_and_one_linear_layer() -> None:
    source = model()
    source.head = nn.Sequential(nn.Dropout(0.3), nn.Sequential(nn.Identity(), source.head)).eval()
    lens = classlens.load(source)
    pixels = torch.randn(2, 3, *lens.view.input_size)
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(lens.trace(pixels).model_logits.values), source(pixels))
    source.head = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3))
    refused(lambda: classlens.load(source), "head of type Sequential")


def test_photos_that_a_model_does_not_take() -> None:
    """A model of six channels, and a transform that leaves every photo as it is."""
    six = timm.create_model("test_vit", in_chans=6)
    zoo.randomize(six)
    lens = classlens.load(six)
    photo = Image.new("RGB", (300, 200))
    refused(lambda: lens.trace(photo), "3 channels of image 'image 0'", "takes 6", "a photo has three")
    assert lens.preprocessing.picture(torch.randn(6, 8, 8)).size == (8, 8)
    as_it_is = classlens.load("builtin:cifar10", transform=lambda image: torch.zeros(3, image.height, image.width))
    refused(lambda: as_it_is.trace(photo), "200×300 pixels of image 'image 0'", "to 32×32", "Resize and CenterCrop")
