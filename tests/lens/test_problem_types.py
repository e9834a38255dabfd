"""Heads whose outputs are no classes that exclude each other: one output, binary logits, several labels, numbers.

A sigmoid is a softmax over the logit and 0. So one label is class 0 of the same model with a second row of zeros.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import classlens
from classlens.explain.registry import METHODS, default_method, is_defined
from classlens.lens.lens import Lens
from tests import zoo
from tests.data.pictures import picture
from tests.refusals import refused


def with_head(rows: int, *, padded: bool = False) -> nn.Module:
    model: Any = zoo.build("cls")
    weight, bias = model.head.weight[:rows], model.head.bias[:rows]
    if padded:
        weight, bias = (torch.cat([part, torch.zeros_like(part)]) for part in (weight, bias))
    model.head = nn.Linear(24, len(weight)).double()
    model.head.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
    module: nn.Module = model
    return module


def number() -> Lens:
    return classlens.load(with_head(1))


def binary() -> Lens:
    return classlens.load(with_head(1), multi_label=True)


def labels() -> Lens:
    return classlens.load(with_head(4), multi_label=True)


def test_what_the_outputs_mean() -> None:
    logits = torch.tensor([[2.0, -1.0]])
    assert (number().view.exclusive, number().view.multi_label) == (False, False)
    assert number().view.probabilities(logits[:, :1]) is None
    for lens in (binary(), labels()):
        assert (lens.view.exclusive, lens.view.multi_label) == (False, True)
        expected = [[1 / (1 + np.exp(-2)), 1 / (1 + np.exp(1))]]
        torch.testing.assert_close(lens.view.probabilities(logits), torch.tensor(expected, dtype=torch.float32))
    classes = classlens.load(with_head(2))
    assert classes.view.exclusive
    softmax = torch.tensor([[1 / (1 + np.exp(-3)), 1 / (1 + np.exp(3))]], dtype=torch.float32)
    torch.testing.assert_close(classes.view.probabilities(logits), softmax)
    assert classlens.load(with_head(4), multi_label=False).view.exclusive


@pytest.mark.parametrize("lens", [number, binary, labels])
def test_what_is_not_defined_is_refused(lens: Any, tmp_path: Path) -> None:
    model = lens()
    pixels = zoo.pixels("cls")
    trace = model.trace(pixels)
    says = "numbers, not classes" if lens is number else "labels with a sigmoid each"
    for result in (trace.rank, trace.identifiability, trace.facts):
        refused(lambda result=result: result("resid_post", 0), says, "a rank compares classes that exclude")  # type: ignore[misc]
    refused(lambda: model.facts(pixels, "mlp_out", 0), says, "a rank")
    refused(lambda: trace.explain(0, method="class_rank"), says, "a rank")
    for loss in ("double_softmax", *(["cross_entropy"] if lens is number else [])):
        for explain in (trace.explain, model.explain):
            given: Any = (0,) if explain == trace.explain else (pixels, 0)
            refused(lambda f=explain, g=given, k=loss: f(*g, method="class_gradient", loss=k), says, repr(loss))  # type: ignore[misc]
    refused(lambda: trace.explain_every_class(loss="cross_entropy"), says, "cross_entropy")
    data, other = (f"folder:{tmp_path / name}" for name in ("data", "other"))
    for seed, name in enumerate(("data", "other")):
        (tmp_path / name).mkdir()
        picture(seed).save(tmp_path / name / "photo.png")
    for run in (classlens.measure, classlens.evaluate, classlens.tune, partial(classlens.probe, test=other)):
        out = tmp_path / "out.safetensors"
        refused(partial(run, model, data, out=out), says, "a run over a data set compares classes")
        assert not out.exists()
    if lens is number:
        refused(lambda: trace.explain(0, method="log_odds"), says, "log odds", "multi_label=True")


@pytest.mark.parametrize("lens", [number, binary, labels])
def test_what_is_defined(lens: Any) -> None:
    """The default map is the attribution of the output, and every method that is defined says something."""
    model = lens()
    trace = model.trace(zoo.pixels("cls"))
    maps = trace.explain()
    assert maps.attrs["method"] == default_method(model.view) == ("logit_attribution" if lens is number else "log_odds")
    np.testing.assert_array_equal(maps.values, trace.explain(method="logit_attribution").values)
    for name, method in METHODS.items():
        if is_defined(method, model.view):
            options = {"loss": "logit"} if name == "class_gradient" else {}
            assert np.abs(trace.map(0, method=name, **options)).max() > 1e-3, name
    assert trace.logits("resid_post").sizes["category"] == len(model.classes)


def test_the_cross_entropy_of_a_label() -> None:
    pixels = zoo.pixels("cls")
    expected = classlens.load(with_head(1, padded=True)).trace(pixels).explain(0, method="class_gradient")
    for maps in (
        binary().trace(pixels).explain(0, method="class_gradient"),
        binary().explain(pixels, 0, method="class_gradient"),
    ):
        assert maps.attrs["loss"] == "cross_entropy"
        np.testing.assert_allclose(maps.values, expected.values, atol=1e-12)
    of_several = labels().trace(pixels).explain(0, method="class_gradient")
    np.testing.assert_allclose(of_several.values, expected.values, atol=1e-12)
