"""The class gradient while the model runs is that of a trace, in every library, and keeps nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import xarray as xr

import classlens
from classlens.forward.hooks import watching
from classlens.forward.recording import Recording
from tests import zoo
from tests.models.library_models import MODELS
from tests.refusals import refused


@pytest.mark.parametrize("name", MODELS)
def test_every_library_as_a_trace(name: str) -> None:
    lens = classlens.load(MODELS[name]().double())
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randn(3, lens.view.channels, *lens.view.input_size, generator=generator, dtype=torch.float64)
    target = torch.tensor([0, 2, 1])
    expected = lens.trace(pixels).explain(target)
    assert float(abs(expected).max()) > 1e-8
    xr.testing.assert_allclose(lens.explain(pixels, target), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["cls_registers", "cls_rms_post_norm", "avg_includes_prefix"])
def test_options_and_labels_are_those_of_a_trace(name: str) -> None:
    model: Any = zoo.build(name)
    lens, pixels = classlens.load(model), zoo.pixels(name)
    before = zoo.snapshot(model)
    options: list[dict[str, Any]] = [
        {},
        {"loss": "logit"},
        {"loss": "double_softmax"},
        {"against": 3},
        {"query": (1, 0), "loss": "logit"},
    ]
    for given in options:
        expected = lens.trace(pixels).explain([1, 5, 2], **given)
        for batch_size in (1, 2, 32):
            found = lens.explain(pixels, [1, 5, 2], batch_size=batch_size, **given)
            assert found.attrs == expected.attrs
            xr.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)
            assert set(found.coords) == set(expected.coords)
    assert zoo.snapshot(model) == before  # law 4


def test_states_of_a_block_are_dropped_when_it_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    from classlens.explain import streaming as streamed

    lens, pixels = classlens.load(zoo.build("cls")), zoo.pixels("cls")
    held: list[dict[str, dict[int, torch.Tensor]]] = []

    def recording(*args: Any) -> Any:
        held.append(args[-1])
        return Recording(*args)

    monkeypatch.setattr(streamed, "Recording", recording)
    seen: list[int] = []
    with watching(lens.view, {"resid_post": lambda _, __: seen.append(sum(len(one) for one in held[-1].values()))}):
        lens.explain(pixels, 0)
    assert seen == [0, 0, 0]


def test_what_it_does_not_do() -> None:
    lens, pixels = classlens.load(zoo.build("cls")), zoo.pixels("cls")
    refused(lambda: lens.explain(pixels, "predicted"), "'predicted'", "trace().explain")
    refused(lambda: lens.explain(pixels, 0, against="predicted"), "'predicted'")
    refused(lambda: lens.explain(pixels, 0, against=1, loss="cross_entropy"), "'cross_entropy'", "against")
    refused(lambda: lens.explain(pixels, 0, batch_size=0), "batch_size is 0")
    refused(lambda: lens.explain(pixels, 0, query="dist"), "'dist'")
