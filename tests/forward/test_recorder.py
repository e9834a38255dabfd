"""Attention weights from the one pass that a trace runs, fused or in steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import classlens
from classlens import Edit, EditStep, KeepTokens, NoCls
from classlens.core.attention_rows import dot_products
from classlens.explain.attribution import attribute
from classlens.forward.recorder import record
from classlens.models.view import SCORE_POINTS, SHARED_POINTS, ModelView
from tests import zoo
from tests.forward.models import IMPLEMENTATIONS, pixels_of, view_of, weights_in_steps
from tests.refusals import refused

METHODS = ("attention", "logit_attribution", "log_odds")


def without_scores(view: ModelView) -> ModelView:
    """The same description without what fused attention takes, so that attention is computed in steps."""
    hidden = (*SCORE_POINTS, *SHARED_POINTS)
    blocks = tuple(
        replace(block, points={name: point for name, point in block.points.items() if name not in hidden})
        for block in view.blocks
    )
    return replace(view, blocks=blocks)


@dataclass(frozen=True, eq=False)
class Halved(Edit):
    """Computes with what passes."""

    point: str
    label, about = "halved", "a tensor is halved"

    def steps(self, view: ModelView) -> Iterator[EditStep]:
        yield EditStep(self.point, 1, lambda x, _: 0.5 * x)


EDITS: dict[str, tuple[Edit, ...]] = {
    "nothing": (),
    "weights": (NoCls(),),
    "tokens": (KeepTokens(np.arange(7) != 5),),
    "queries": (Halved("queries"),),
    "the MLP": (Halved("mlp_out"),),
}


@pytest.mark.parametrize("edits", EDITS)
@pytest.mark.parametrize("described", [True, False])
def test_one_pass_and_the_weights_are_its_own(described: bool, edits: str) -> None:
    """Whether or not the scores are described, and whatever is edited."""
    if edits == "queries" and not described:
        return
    model, passes, pixels = zoo.build("cls_registers"), list[None](), zoo.pixels("cls_registers")
    model.register_forward_hook(lambda *_: passes.append(None))
    lens = classlens.load(model)
    lens = lens if described else classlens.load(without_scores(lens.view))
    with lens.edit(*EDITS[edits]):
        expected = weights_in_steps(lens.view, pixels)
        passes.clear()
        trace = lens.trace(pixels)
        parts = trace.attribution(2)
        assert len(passes) == 1
        cls = torch.tensor([0])
        for block, weights in enumerate(expected):
            rows = trace.recording.rows(block, slice(None), cls)
            torch.testing.assert_close(rows, weights[:, :, :1], rtol=0, atol=1e-12)
        total = sum(parts[name].sum([dim for dim in parts[name].dims if dim != "image"]) for name in PARTS)
        np.testing.assert_allclose(total, trace.model_logits[:, 2], rtol=0, atol=1e-9)
        for method in METHODS:
            maps = trace.explain(2, method=method)
            assert len(passes) == 1, method
            streamed = lens.explain(pixels, 2, method=method, batch_size=2)
            assert len(passes) == 3, f"{method}: one for each of two batches"
            np.testing.assert_allclose(streamed, maps, rtol=0, atol=1e-12)
            del passes[1:]


PARTS = ("embed", "attention", "mlp", "bias", "edit")


@pytest.mark.parametrize(
    "name", [n if "timm cls" in n else pytest.param(n, marks=pytest.mark.slow) for n in IMPLEMENTATIONS]
)
def test_attribution_is_that_of_weights_in_steps(name: str) -> None:
    view = view_of(name)
    if any(readout.space.pool is not None for readout in view.readouts):
        return
    pixels, target = pixels_of(view), torch.tensor([1, 2])
    fused, in_steps = (attribute(record(each, pixels), target) for each in (view, without_scores(view)))
    for part, values in vars(fused).items():
        torch.testing.assert_close(values, vars(in_steps)[part], rtol=0, atol=1e-9, msg=part)


def test_weights_that_take_more_ram_than_queries_and_keys() -> None:
    """25 queries of 24 channels: what they are computed from is kept instead."""
    model: Any = VisionTransformer(
        img_size=40,
        patch_size=8,
        embed_dim=24,
        depth=2,
        num_heads=3,
        num_classes=5,
        class_token=False,
        global_pool="avg",
    )
    zoo.randomize(model)
    lens = classlens.load(model.double().eval())
    pixels = pixels_of(lens.view, 3)
    trace = lens.trace(pixels)
    for method in METHODS:
        streamed = lens.explain(pixels, 2, method=method, batch_size=2)
        np.testing.assert_allclose(streamed, trace.explain(2, method=method), rtol=0, atol=1e-12)


def test_a_method_that_reads_every_query_in_steps_runs_once_more() -> None:
    view = without_scores(classlens.load(zoo.build("cls_registers")).view)
    expected = classlens.load(zoo.build("cls_registers")).trace(zoo.pixels("cls_registers"))
    trace = classlens.load(view).trace(zoo.pixels("cls_registers"))
    for options in ({"method": "rollout"}, {"method": "attention", "query": (1, 0)}):
        np.testing.assert_allclose(trace.explain(**options), expected.explain(**options), rtol=0, atol=1e-12)


def twice_as_large(passed: Mapping[str, Tensor], queries: Tensor) -> Tensor:
    return 2 * dot_products(passed, queries)


def swapped(passed: Mapping[str, Tensor], queries: Tensor) -> Tensor:
    return dot_products({"queries": passed["keys"], "keys": passed["queries"]}, queries)


def without_bias(passed: Mapping[str, Tensor], queries: Tensor) -> Tensor:
    return dot_products({name: passed[name] for name in ("queries", "keys")}, queries)


def broken(passed: Mapping[str, Tensor], queries: Tensor) -> Tensor:
    return passed["rotation"]


DIFFERENT = "attention weights of block 1 are not those of its queries and keys"
WRONG: dict[str, tuple[str, Callable[..., Tensor], str]] = {
    "scale": ("timm cls_registers", twice_as_large, DIFFERENT),
    "queries for keys": ("timm cls_registers", swapped, DIFFERENT),
    "no rotation": ("timm EVA-02", without_bias, DIFFERENT),
    "no bias": ("timm relative position, shared", without_bias, DIFFERENT),
    "fewer heads": (
        "timm cls_registers",
        lambda passed, queries: dot_products(passed, queries)[:, :1],
        "attention weights of block 1 from its scores are [1, 1,",
    ),
    "an error": ("timm cls_registers", broken, "scores of block 1 cannot be computed ('rotation')"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_description_is_refused(what: str) -> None:
    name, scores, reason = WRONG[what]
    view = view_of(name)
    wrong = replace(view, blocks=(view.blocks[0], *(replace(block, scores=scores) for block in view.blocks[1:])))
    refused(lambda: classlens.load(wrong), "the description of model", reason)


def test_queries_and_keys_go_together() -> None:
    block = classlens.load(zoo.build("cls")).view.blocks[0]
    points = {name: point for name, point in block.points.items() if name != "keys"}
    refused(lambda: replace(block, points=points), "without the point 'keys'", "queries and keys go together")
    del points["queries"]
    points["attn_in"] = block.points["resid_pre"]
    refused(lambda: replace(block, points=points), "without the point 'queries'", "attn_in goes with scores")
