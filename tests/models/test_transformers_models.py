"""Particulars of transformers' modules: attention functions, sizes, subclasses. The rest is in the contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import classlens
from classlens.forward.run import evaluating
from classlens.models.transformers import ADAPTER
from tests import zoo
from tests.models.oracles import randomize
from tests.refusals import refused

pytest.importorskip("transformers")
interface: Any = pytest.importorskip("transformers.modeling_utils").ALL_ATTENTION_FUNCTIONS

from tests.models.tiny_transformers import MODELS, build  # noqa: E402


def test_steps_within_steps() -> None:
    vit, siglip = build(), build("SiglipForImageClassification")
    views = [ADAPTER.describe(model, "m") for model in (vit, vit, siglip)]
    before = zoo.snapshot(vit), zoo.snapshot(siglip), sorted(interface)
    with evaluating(vit), evaluating(siglip), views[0].unfused():
        with views[1].unfused(), views[2].unfused():
            views[2].run(MODELS["SiglipForImageClassification"].pixels())
        views[0].run(MODELS["ViTForImageClassification"].pixels())
    assert (zoo.snapshot(vit), zoo.snapshot(siglip), sorted(interface)) == before


def test_fused_attention_stays_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    fused = F.scaled_dot_product_attention

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(1)
        return fused(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    tiny = MODELS["BeitForImageClassification"]
    trace = classlens.load(tiny.make()).trace(tiny.pixels())
    trace.explain(1, method="class_gradient")
    assert len(calls) == 3, "three blocks in the trace; the self-check runs in steps"
    trace.attribution(1)
    assert len(calls) == 3


def test_a_tuple_in_place_of_a_named_output() -> None:
    tiny = MODELS["SiglipForImageClassification"]
    model, pixels = tiny.make(), tiny.pixels()
    with torch.no_grad():
        expected = model(pixels).logits
    model.config.return_dict = False
    found = classlens.load(model).trace(pixels).model_logits
    torch.testing.assert_close(torch.from_numpy(found.values), expected)


def test_a_class_made_from_one_that_is_read() -> None:
    vit = build()
    model = type("Mine", (type(vit),), {"__module__": "mine"})(vit.config)
    randomize(model)
    assert classlens.load(model).view.name == "Mine"


def test_sizes() -> None:
    vit, dinov2 = classlens.load(build()), classlens.load(build("Dinov2ForImageClassification"))
    refused(lambda: vit.trace(torch.zeros(1, 3, 16, 24)), "16×16")
    assert dinov2.trace(torch.zeros(1, 3, 26, 32)).rank("resid_post", 1).shape == (1, 3, 1 + 3 * 4)
    refused(lambda: dinov2.trace(torch.zeros(1, 3, 4, 32)), "less than one 8×8 patch")


def test_attention_that_may_be_no_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    monkeypatch.setitem(interface, "sigmoid", lambda *_, **__: None)
    model.config._attn_implementation = "sigmoid"
    refused(lambda: classlens.load(model), "'sigmoid'", "sdpa")
