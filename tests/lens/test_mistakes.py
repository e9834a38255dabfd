"""What users get wrong: a model changed under its lens, targets and names of the wrong kind, half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import classlens
from classlens.errors import ClasslensError
from tests import zoo
from tests.refusals import refused

# A model that changes under the lens


def double(model: Any) -> None:
    model.double()


def new_head(model: Any) -> None:
    model.head = nn.Linear(24, zoo.CLASSES)


def assigned(model: Any) -> None:
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)


@pytest.mark.parametrize("change", [double, new_head, assigned])
def test_a_model_whose_parameters_were_replaced_is_to_be_loaded_again(change: Callable[[Any], None]) -> None:
    """Its old weights would be projected on, without a word."""
    model = zoo.build("cls", torch.float32)
    lens = classlens.load(model)
    change(model)
    pixels = zoo.pixels("cls", dtype=torch.float32)
    for call in (lambda: lens.trace(pixels), lambda: lens.facts(pixels, "mlp_out", 1), lens.check):
        with pytest.raises(ClasslensError, match="is another tensor now; load the model again"):
            call()
    assert classlens.load(model).trace(pixels.to(next(model.parameters()).dtype)) is not None


def test_numbers_may_change() -> None:
    """As they do in training, or when a state dict is loaded in place."""
    model: Any = zoo.build("cls")
    lens = classlens.load(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    pixels = zoo.pixels("cls")
    np.testing.assert_allclose(lens.trace(pixels).model_logits.values, model(pixels).detach(), atol=1e-12)
    assert lens.check().law2 < 1e-12


@pytest.mark.parametrize("given", [None, 3, ["vit"], b"vit", True])
def test_what_is_no_model(given: Any) -> None:
    refused(
        lambda: classlens.load(given),
        f"model {given!r} cannot be used: give a model name, a folder, a module",
    )


def test_a_transform_with_another_number_of_channels() -> None:
    lens = classlens.load(zoo.build("cls"), transform=lambda picture: torch.zeros(1, 16, 16))
    with pytest.raises(ClasslensError, match=r"makes 1 channels of image 'image 0', but model .* takes 3"):
        lens.trace(Image.new("RGB", (16, 16)))


TARGETS: dict[str, tuple[Any, str]] = {
    "a float": (3.7, "3.7"),
    "floats": ([3.0, 1.0, 2.0], "[3.0, 1.0, 2.0]"),
    "a float tensor": (torch.tensor([1.0, 2.0, 3.0]), "1.0"),
    "bools": (np.array([True, False, True]), "True"),
    "True": (True, "True"),
    "None": (None, "None"),
    "two dimensions": (torch.zeros(3, 1, dtype=torch.int64), "[0]"),
    "a set": ({1, 2, 3}, "{1, 2, 3}"),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_what_is_no_class(kind: str) -> None:
    given, words = TARGETS[kind]
    trace = classlens.load(zoo.build("cls")).trace(zoo.pixels("cls"))
    refused(lambda: trace.rank("mlp_out", given), f"target {words} cannot be used: give the index or name of a class")


@pytest.mark.parametrize("given", [np.int64(4), torch.tensor(4), np.array(4), [np.int32(4), 4, torch.tensor(4)]])
def test_integers_of_every_kind_are_classes(given: Any) -> None:
    trace = classlens.load(zoo.build("cls")).trace(zoo.pixels("cls"))
    assert trace.rank("mlp_out", given).equals(trace.rank("mlp_out", 4))


def test_class_names_as_one_string() -> None:
    with pytest.raises(ClasslensError, match="class_names .elevenchars. cannot be used: give a list of names"):
        classlens.load(zoo.build("cls"), class_names="elevenchars")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_facts_in_half_precision_do_not_depend_on_what_else_is_asked_for(dtype: torch.dtype) -> None:
    """The model rounds its states, so their products are not the sums of those of their parts."""
    lens = classlens.load(zoo.build("cls", dtype))
    pixels = zoo.pixels("cls", 8, dtype)
    together = lens.facts(pixels, ["attn_out", "resid_mid", "mlp_out", "resid_post"], 4)
    for site in ("resid_mid", "resid_post"):
        alone = lens.facts(pixels, site, 4).isel(site=0)
        np.testing.assert_array_equal(together.sel(site=site)["logit"], alone["logit"])
