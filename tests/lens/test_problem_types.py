"""Heads whose outputs are no classes that exclude each other: one output, binary logits, several labels, numbers.

A sigmoid is a softmax over 0 and the logit. So one label is class 1 of the same model with a row of zeros above it.
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
from classlens.store.open_store import open_group
from tests import zoo
from tests.data.pictures import picture
from tests.refusals import refused


def with_head(rows: int, *, padded: bool = False) -> nn.Module:
    model: Any = zoo.build("cls")
    weight, bias = model.head.weight[:rows], model.head.bias[:rows]
    if padded:
        weight, bias = (torch.cat([torch.zeros_like(part), part]) for part in (weight, bias))
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
    assert binary().view.exclusive
    assert (labels().view.exclusive, labels().view.multi_label) == (False, True)
    expected = [[1 / (1 + np.exp(-2)), 1 / (1 + np.exp(1))]]
    torch.testing.assert_close(labels().view.probabilities(logits), torch.tensor(expected, dtype=torch.float32))
    classes = classlens.load(with_head(2))
    assert classes.view.exclusive
    softmax = torch.tensor([[1 / (1 + np.exp(-3)), 1 / (1 + np.exp(3))]], dtype=torch.float32)
    torch.testing.assert_close(classes.view.probabilities(logits), softmax)
    assert classlens.load(with_head(4), multi_label=False).view.exclusive


@pytest.mark.parametrize("lens", [number, labels])
def test_what_is_not_defined_is_refused(lens: Any, tmp_path: Path) -> None:
    model = lens()
    pixels = zoo.pixels("cls")
    trace = model.trace(pixels)
    says = "numbers, not classes" if lens is number else "labels with a sigmoid each"
    if lens is number:
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
    runs: list[Any] = [classlens.measure, classlens.tune, partial(classlens.probe, test=other)]
    for run in (*runs, *([classlens.evaluate] if lens is number else [])):
        out = tmp_path / "out.safetensors"
        refused(partial(run, model, data, out=out), says, "compares classes that exclude each other")
        assert not out.exists()
    if lens is number:
        refused(lambda: trace.explain(0, method="log_odds"), says, "log odds", "multi_label=True")


@pytest.mark.parametrize("lens", [number, labels])
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


def padded() -> Lens:
    """The same model with a row of zeros above its head."""
    return classlens.load(with_head(1, padded=True))


def test_the_cross_entropy_of_a_label() -> None:
    pixels = zoo.pixels("cls")
    expected = padded().trace(pixels).explain(1, method="class_gradient")
    for maps in (
        labels().trace(pixels).explain(0, method="class_gradient"),
        labels().explain(pixels, 0, method="class_gradient"),
    ):
        assert maps.attrs["loss"] == "cross_entropy"
        np.testing.assert_allclose(maps.values, expected.values, atol=1e-12)


# One binary logit


def test_a_binary_logit_is_two_classes(caplog: pytest.LogCaptureFixture) -> None:
    """All results are those of the model with a row of zeros, and the probabilities those of torch's sigmoid."""
    pixels, module = zoo.pixels("cls"), with_head(1)
    with caplog.at_level("WARNING", "classlens"):
        lens = classlens.load(module, multi_label=True)
    assert caplog.messages == ["one binary logit z: classes 'negative' and 'positive' with the logits 0 and z"]
    assert lens.classes.names == ("negative", "positive")
    trace, expected = lens.trace(pixels), padded().trace(pixels)
    with torch.no_grad():
        logit = module(pixels)[:, 0]
    logits = torch.from_numpy(trace.model_logits.values)
    torch.testing.assert_close(logits[:, 1], logit, rtol=0, atol=0)
    probabilities = lens.view.probabilities(logits)
    assert probabilities is not None
    torch.testing.assert_close(probabilities[:, 1], logit.sigmoid())
    for label in (0, 1):
        target = torch.full((len(logit),), label)
        entropy = nn.functional.binary_cross_entropy_with_logits(logit, target.double())
        torch.testing.assert_close(nn.functional.cross_entropy(logits, target), entropy)
        for result in ("rank", "identifiability"):
            found = getattr(trace, result)("resid_post", label)
            np.testing.assert_array_equal(found.values, getattr(expected, result)("resid_post", label).values)
        token = trace.logits().values[..., 1]
        np.testing.assert_array_equal(trace.rank("resid_post", label).values, (token < 0) if label else (token > 0))
        for name, method in METHODS.items():
            if is_defined(method, lens.view):
                maps = [of.map(label, method=name) for of in (trace, expected)]
                np.testing.assert_allclose(maps[0], maps[1], rtol=0, atol=1e-12, err_msg=name)
    log_odds = [trace.explain(label, method="log_odds").values for label in (0, 1)]
    np.testing.assert_allclose(log_odds[0], -log_odds[1], atol=1e-12)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ("negative", "positive")),
        (["tumor"], ("not tumor", "tumor")),
        (["benign", "malignant"], ("benign", "malignant")),
    ],
)
def test_names_of_the_two_classes(given: Any, expected: tuple[str, str]) -> None:
    assert classlens.load(with_head(1), multi_label=True, class_names=given).classes.names == expected
    refused(lambda: classlens.load(with_head(1), multi_label=True, class_names=["a", "b", "c"]), "3 class names")


def folders(root: Path, *names: str) -> str:
    for seed, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(2):
            picture(2 * seed + number).save(root / name / f"{number}.png")
    return f"folder:{root}"


def test_data_of_two_classes(tmp_path: Path) -> None:
    """Folders in the order of torchvision: the first is 0, the negative class."""
    lens = classlens.load(with_head(1), multi_label=True, transform=lambda image: pixels_of(image))
    data = folders(tmp_path / "data", "benign", "malignant")
    result = classlens.measure(lens, data, out=tmp_path / "store.zarr", conditions=["clean"])
    assert result.images == 4
    values = open_group(str(tmp_path / "store.zarr"), "clean")
    assert values["label"].values.tolist() == [0, 0, 1, 1]
    assert set(np.unique(values["rank"].values).tolist()) <= {0, 1}


def pixels_of(image: Any) -> torch.Tensor:
    values = torch.from_numpy(np.asarray(image.convert("RGB").resize((16, 16)), dtype=np.float64) / 255)
    return values.permute(2, 0, 1)


# Labels with a sigmoid each


def test_ranks_and_identifiability_of_labels() -> None:
    """Counted one by one: labels with a larger logit, and tokens whose probability is above a half."""
    trace = labels().trace(zoo.pixels("cls"))
    logits = trace.logits("attn_out").values
    facts = trace.facts("attn_out", 2)
    identifiability = trace.identifiability("attn_out", 2)
    for index in np.ndindex(*logits.shape[:-1]):
        row = logits[index]
        assert facts["rank"].isel(site=0).values[index] == sum(other > row[2] for other in row)
        assert identifiability.values[index] == float(1 / (1 + np.exp(-row[2])) > 0.5)
    assert 0 < float(identifiability.mean()) < 1
    streamed = labels().facts(zoo.pixels("cls"), "attn_out", 2)
    np.testing.assert_array_equal(streamed["rank"].values, facts["rank"].values)


def test_means_need_no_classes(tmp_path: Path) -> None:
    data = folders(tmp_path / "data", "a", "b")
    for kind, rows in ((None, 1), (True, 4)):
        lens = classlens.load(with_head(rows), multi_label=kind, transform=pixels_of)
        classlens.means(lens, data, out=tmp_path / f"{rows}.safetensors")
        assert (tmp_path / f"{rows}.safetensors").is_file()


def test_an_evaluation_of_labels(tmp_path: Path) -> None:
    """A label counts as right where its logit is above 0, whatever the others are."""
    module: Any = with_head(4)
    with torch.no_grad():
        module.head.bias[:] = torch.tensor([100.0, 200.0, -100.0, 300.0])
    names = ["a", "b", "c", "d"]
    lens = classlens.load(module, multi_label=True, class_names=names, transform=pixels_of)
    data = folders(tmp_path / "data", "a", "c")
    result = classlens.evaluate(lens, data, out=tmp_path / "out", methods="random", metrics="removal", steps=2)
    shares = result.curves["value"]
    assert len(shares)
    assert (shares == 0.5).all(), "the two images of class a, whose logit is not the largest"
