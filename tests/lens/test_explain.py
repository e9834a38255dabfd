"""`Lens.explain` is `Trace.explain`, whatever the method, streamed or batch by batch, and keeps no states."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import classlens
from classlens.explain import class_gradient
from classlens.explain.registry import METHODS
from classlens.forward.hooks import watching
from classlens.forward.recording import Recording
from tests import zoo
from tests.models.library_models import MODELS
from tests.refusals import refused

# Of timm one model for each kind of head: all of its variants are read at the same points.
LIBRARIES = [name for name in MODELS if not name.startswith("timm ") or name.removeprefix("timm ") in zoo.KINDS]


@pytest.mark.parametrize("name", LIBRARIES)
def test_every_library_as_a_trace(name: str) -> None:
    lens = classlens.load(MODELS[name]().double())
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randn(3, lens.view.channels, *lens.view.input_size, generator=generator, dtype=torch.float64)
    target = torch.tensor([0, 2, 1])
    expected = lens.trace(pixels).explain(target, method="class_gradient")
    assert float(abs(expected).max()) > 1e-8
    xr.testing.assert_allclose(lens.explain(pixels, target, method="class_gradient"), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["cls_registers", "cls_rms_post_norm", "avg_includes_prefix"])
def test_options_and_labels_are_those_of_a_trace(name: str) -> None:
    model: Any = zoo.build(name)
    lens, pixels = classlens.load(model), zoo.pixels(name)
    trace, before = lens.trace(pixels), zoo.snapshot(model)
    streamed: dict[str, Any] = {"method": "class_gradient"}
    cases: list[tuple[dict[str, Any], int]] = [
        ({}, 1),
        ({}, 2),
        ({}, 32),
        ({"against": [3, 4, 5]}, 2),
        (streamed, 2),
        (streamed | {"loss": "logit"}, 2),
        (streamed | {"loss": "double_softmax"}, 2),
        (streamed | {"against": 3}, 2),
        (streamed | {"against": [3, 4, 5]}, 2),
        (streamed | {"query": (1, 0), "loss": "logit"}, 2),
    ]
    for options, batch_size in cases:
        expected = trace.explain([1, 5, 2], **options)
        same(lens.explain(pixels, [1, 5, 2], batch_size=batch_size, **options), expected)
    assert zoo.snapshot(model) == before  # law 4


def same(maps: xr.DataArray, expected: xr.DataArray) -> None:
    assert maps.dims == expected.dims
    assert maps.attrs == expected.attrs
    assert maps.dtype == expected.dtype
    assert set(maps.coords) == set(expected.coords)
    xr.testing.assert_allclose(maps, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_as_a_trace(method: str) -> None:
    """For known and for predicted classes, images in one batch and in several."""
    lens, pixels = classlens.load(zoo.build("avg_includes_prefix")), zoo.pixels("avg_includes_prefix")
    trace = lens.trace(pixels)
    assert len(np.unique(trace.predictions)) > 1
    same(lens.explain(pixels, method=method, batch_size=2), trace.explain(method=method))
    same(lens.explain(pixels, [1, 5, 2], method=method, batch_size=2), trace.explain([1, 5, 2], method=method))


def test_another_class_that_is_predicted() -> None:
    lens, pixels = classlens.load(zoo.build("cls")), zoo.pixels("cls")
    for method, attrs in (("class_gradient", {"loss": "logit"}), ("log_odds", {})):
        expected = lens.trace(pixels).explain([1, 5, 2], method=method, against="predicted")
        same(lens.explain(pixels, [1, 5, 2], method=method, against="predicted", batch_size=2), expected)
        assert expected.attrs == {"method": method, "against": "predicted"} | attrs


def test_an_option_reaches_every_batch() -> None:
    lens, pixels = classlens.load(zoo.build("cls")), zoo.pixels("cls")
    expected = lens.trace(pixels).explain(method="grad_cam", block=1)
    same(lens.explain(pixels, method="grad_cam", block=1, batch_size=1), expected)


def test_states_of_a_block_are_dropped_when_it_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    lens, pixels = classlens.load(zoo.build("cls")), zoo.pixels("cls")
    held: list[dict[str, dict[int, torch.Tensor]]] = []

    def recording(*args: Any, **options: Any) -> Any:
        held.append(args[-1])
        return Recording(*args, **options)

    monkeypatch.setattr(class_gradient, "Recording", recording)
    counts: list[int] = []
    receivers = {"resid_post": lambda _, __: counts.append(sum(len(states) for states in held[-1].values()))}
    with watching(lens.view, receivers):
        class_gradient.class_gradient_streamed(lens.view, pixels, torch.zeros(len(pixels), dtype=torch.int64))
    assert counts == [0, 0, 0]


def test_a_recording_holds_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    from classlens.lens import lens as module

    lens, pixels = classlens.load(zoo.build("cls")), zoo.pixels("cls", 5)
    sizes: list[int] = []
    from classlens.forward.recorder import record

    def recording(view: Any, batch: torch.Tensor, **options: Any) -> Any:
        sizes.append(len(batch))
        return record(view, batch, **options)

    monkeypatch.setattr(module, "record", recording)
    lens.explain(pixels, 0, method="rollout", batch_size=2)
    assert sizes == [2, 2, 1]


def test_refusals() -> None:
    lens, pixels = classlens.load(zoo.build("cls")), zoo.pixels("cls")
    gradient = partial(lens.explain, pixels, 0, method="class_gradient")
    refused(lambda: gradient(against=1, loss="cross_entropy"), "'cross_entropy'", "against")
    refused(lambda: lens.explain(pixels, 0, batch_size=0), "batch_size 0 cannot be used")
    refused(lambda: gradient(query="dist"), "'dist'")
    refused(lambda: lens.explain(pixels, 0, method="rollout", loss="logit"), "has no option 'loss'")
    refused(lambda: lens.explain(pixels, method="gradcam"), "did you mean 'grad_cam'")
    pixels[1, 0, 3, 3] = float("nan")
    refused(lambda: lens.explain(pixels, method="rollout", batch_size=1), "'image 1'", "not finite")
