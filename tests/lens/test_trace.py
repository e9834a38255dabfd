"""Projection of every token at every site, and what is read off it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import classlens
from classlens.core import scores
from classlens.explain import class_logits
from classlens.models.view import SITES, Site
from tests import literal, zoo
from tests.refusals import refused

BLOCK_SITES: tuple[Site, ...] = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
# Every combination is tried where facts are computed (tests/core/test_scores.py). Here every pair of sites once, with
# and without the sublayer outputs whose products make up those of the sums.
SUBSETS: list[tuple[Site, ...]] = [
    BLOCK_SITES,
    ("attn_out", "mlp_out", "resid_post"),
    ("mlp_out", "resid_mid", "attn_out"),
    ("resid_pre", "attn_out", "mlp_out"),
    ("attn_out", "resid_mid", "resid_post"),
    ("resid_pre", "mlp_out"),
    ("resid_post", "resid_pre"),
]


def _traced(name: str, dtype: torch.dtype = torch.float64, images: int = 3, **options: Any) -> classlens.Trace:
    return classlens.load(zoo.build(name, dtype)).trace(zoo.pixels(name, images, dtype), **options)


def _ranks(logits: np.ndarray[Any, Any], target: Sequence[int]) -> np.ndarray[Any, Any]:
    """Where the class of interest first stands when every row is sorted from the largest down."""
    falling = -np.sort(-logits, axis=-1)
    target_logits = np.stack([logits[image, ..., index] for image, index in enumerate(target)])
    ranks: np.ndarray[Any, Any] = (falling == target_logits[..., None]).argmax(axis=-1)
    return ranks


@pytest.mark.parametrize("name", zoo.VARIANTS)
def test_logits_are_the_model_s_own_end_on_every_state(name: str) -> None:
    """Of states computed by loops, of block outputs from timm itself, and in float32 up to one part in 100,000."""
    variant, model = zoo.VARIANTS[name], zoo.build(name)
    trace, single = classlens.load(model).trace(zoo.pixels(name)), _traced(name, torch.float32)
    states = literal.states(model, zoo.pixels(name))
    for site in SITES:
        logits = trace.logits(site)
        with torch.no_grad():
            expected = torch.stack([literal.class_logits(model, state) for state in states[site]], dim=1)
        assert logits.dims == ("image", "block", "token", "category")
        # Two orders of summing float64 numbers of order 10.
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-11, err_msg=site)
        rounded = single.logits(site)
        assert rounded.dtype == np.float32
        assert abs(rounded - logits).max() < 1e-5 * max(10, float(abs(logits).max())), site
    with torch.no_grad():
        outputs: Any = model.forward_intermediates(
            zoo.pixels(name), return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
        )
        blocks = [torch.cat([output[1], output[0]], dim=1) if variant.prefix else output for output in outputs]
        expected = torch.stack([literal.class_logits(model, state) for state in blocks], dim=1)
    np.testing.assert_allclose(trace.logits("resid_post"), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", zoo.KINDS)
def test_half_precision_states_are_projected_in_float32(name: str) -> None:
    """The model's end, copied to float64, on the very bfloat16 states that the model makes."""
    model = zoo.build(name, torch.bfloat16)
    pixels = zoo.pixels(name, dtype=torch.bfloat16)
    states = literal.states(model, pixels)
    trace = classlens.load(model).trace(pixels)
    exact = copy.deepcopy(model).double()
    for site in SITES:
        logits = trace.logits(site)
        with torch.no_grad():
            expected = torch.stack([literal.class_logits(exact, state.double()) for state in states[site]], dim=1)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", zoo.VARIANTS)
def test_both_laws_in_every_precision(name: str) -> None:
    """Law 2 from the logits of tokens where pooling and projecting can be swapped, else from the pooled state."""
    variant = zoo.VARIANTS[name]
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-4)):
        model, pixels = zoo.build(name, dtype), zoo.pixels(name, dtype=dtype)
        lens = classlens.load(model)
        trace = lens.trace(pixels)
        with torch.no_grad():
            model_logits = model(pixels)
        assert model_logits.abs().max() > 4
        np.testing.assert_array_equal(trace.model_logits, model_logits)
        np.testing.assert_array_equal(trace.predictions, model_logits.argmax(dim=1))
        if isinstance(model.fc_norm, torch.nn.Identity) or len(variant.pooled) == 1:
            last = trace.logits("resid_post").isel(block=-1, token=list(variant.pooled)).mean("token")
            np.testing.assert_allclose(last, model_logits, rtol=0, atol=tolerance)
        state = trace.recording.state("resid_post", 2, slice(0, 3))
        np.testing.assert_allclose(lens.view.logits(state), model_logits, rtol=0, atol=tolerance)
        for checks in (lens.checks, lens.check(pixels)):
            assert checks.law1 == 0, "the parts are added in the model's own order"
            assert checks.law2 <= min(tolerance, checks.law2_tolerance)
    half, pixels = classlens.load(zoo.build(name, torch.bfloat16)), zoo.pixels(name)
    checks = half.check(pixels)
    assert checks.law1 == 0
    # The model's own norm and head round to 8 bits; the pooled tokens are projected without.
    largest = float(abs(half.trace(pixels).model_logits).max())
    assert 0 < checks.law2 <= 4 * torch.finfo(torch.bfloat16).eps * largest


@pytest.mark.parametrize("name", zoo.VARIANTS)
def test_facts_are_those_of_the_sorted_logits(name: str) -> None:
    """From a trace, and while the model runs."""
    lens, pixels, target = classlens.load(zoo.build(name)), zoo.pixels(name), zoo.targets().tolist()
    trace = lens.trace(pixels)
    for site in SITES:
        logits = trace.logits(site).values
        facts = trace.facts(site, target)
        assert facts["rank"].dims == ("image", "site", "block", "token")
        expected = _ranks(logits, target)
        assert len(np.unique(expected)) > 2
        np.testing.assert_array_equal(facts["rank"].sel(site=site), expected)
        np.testing.assert_array_equal(facts.top1.sel(site=site), logits.argmax(axis=-1))
        target_logits = np.stack([logits[image, ..., index] for image, index in enumerate(target)])
        np.testing.assert_allclose(facts.logit.sel(site=site), target_logits, rtol=0, atol=1e-11)
        rank = trace.rank(site, target)
        assert rank.dims == ("image", "block", "token")
        np.testing.assert_array_equal(rank, expected)
        share = trace.identifiability(site, target)
        np.testing.assert_allclose(share, 1 - expected / zoo.CLASSES, rtol=0, atol=1e-6)
    groups: list[tuple[Site, ...]] = [("embed",), ("attn_out", "resid_mid", "mlp_out", "resid_post"), ("resid_pre",)]
    for sites in groups:
        streamed, recorded = lens.facts(pixels, sites, target), trace.facts(sites, target)
        xr.testing.assert_allclose(streamed, recorded, rtol=0, atol=1e-11)
        xr.testing.assert_equal(streamed[["rank", "top1"]], recorded[["rank", "top1"]])
        assert set(streamed.coords) == set(recorded.coords)


def test_every_result_has_the_same_defaults() -> None:
    trace = _traced("cls")
    predicted = trace.predictions.values
    xr.testing.assert_identical(trace.rank(), trace.rank("resid_post", "predicted"))
    np.testing.assert_array_equal(trace.rank(), trace.rank("resid_post", predicted))
    xr.testing.assert_identical(trace.identifiability(), trace.identifiability("resid_post", "predicted"))
    xr.testing.assert_identical(trace.facts(), trace.facts("resid_post", "predicted"))
    xr.testing.assert_identical(trace.top(), trace.top("resid_post", 5))
    xr.testing.assert_identical(trace.logits(), trace.logits("resid_post"))
    xr.testing.assert_identical(trace.explain(), trace.explain("predicted", method="log_odds"))


@pytest.mark.parametrize("name", zoo.KINDS)
def test_facts_do_not_depend_on_which_sites_are_asked_for_together(name: str) -> None:
    lens, target = classlens.load(zoo.build(name)), zoo.targets()
    trace = lens.trace(zoo.pixels(name))
    alone: dict[str, xr.Dataset] = {site: trace.facts(site, target).isel(site=0) for site in BLOCK_SITES}
    for sites in SUBSETS:
        for facts in (trace.facts(sites, target), lens.facts(zoo.pixels(name), sites, target)):
            assert facts.site.values.tolist() == list(sites)
            for site in sites:
                site_facts = facts.sel(site=site)
                for fact in ("rank", "top1"):
                    np.testing.assert_array_equal(
                        site_facts[fact], alone[site][fact], err_msg=f"{fact} of {site} in {sites}"
                    )
                np.testing.assert_allclose(site_facts.logit, alone[site].logit, rtol=0, atol=1e-11)


def test_sites_come_back_in_the_order_asked_for() -> None:
    trace = _traced("cls")
    facts = trace.facts(("resid_post", "attn_out"), 0)
    assert facts.site.values.tolist() == ["resid_post", "attn_out"]
    np.testing.assert_array_equal(facts["rank"].sel(site="attn_out"), trace.rank("attn_out", 0))
    np.testing.assert_array_equal(facts["rank"].isel(site=0), trace.rank("resid_post", 0))


def test_a_site_asked_for_twice_is_answered_once() -> None:
    lens, pixels = classlens.load(zoo.build("cls")), zoo.pixels("cls")
    expected = lens.trace(pixels).facts("mlp_out", 0)
    for facts in (lens.trace(pixels).facts(["mlp_out", "mlp_out"], 0), lens.facts(pixels, ["mlp_out", "mlp_out"], 0)):
        xr.testing.assert_allclose(facts, expected, rtol=0, atol=1e-11)


def test_float32_sums_of_products_are_products_of_sums() -> None:
    """The shortcut for sums of sublayer outputs, in the precision that it is used in."""
    trace = _traced("cls_layer_scale", torch.float32)
    together = trace.facts(BLOCK_SITES, 3)
    for site in BLOCK_SITES:
        logits = trace.logits(site).values
        off = abs(together.logit.sel(site=site).values - logits[..., 3])
        assert off.max() < 1e-5 * abs(logits).max()
        # A rank may move by the classes whose logits lie within the rounding, and by no more.
        near = (abs(logits - logits[..., 3:4]) < 2e-5 * abs(logits).max()).sum(axis=-1) - 1
        assert (abs(together["rank"].sel(site=site).values - _ranks(logits, [3, 3, 3])) <= near).all()


def test_equal_logits_do_not_count_against_a_class() -> None:
    model: Any = zoo.build("cls")
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
    lens = classlens.load(model)
    for facts in (lens.trace(zoo.pixels("cls")).facts(BLOCK_SITES, 7), lens.facts(zoo.pixels("cls"), BLOCK_SITES, 7)):
        assert not facts["rank"].any()
        assert not facts.top1.any(), "the lowest index of those that tie"
    with torch.no_grad():
        model.head.bias[[2, 7]] = 1.0
        model.head.bias[5] = 2.0
    facts = lens.trace(zoo.pixels("cls")).facts(BLOCK_SITES, 7)
    assert (facts["rank"] == 1).all()
    assert (facts.top1 == 5).all()


@pytest.mark.parametrize("name", zoo.KINDS)
def test_results_do_not_depend_on_batches_or_groups(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = 5
    lens, pixels, target = classlens.load(zoo.build(name)), zoo.pixels(name, images), zoo.targets(images)
    reference = lens.trace(pixels)
    logits, facts, top = reference.logits("mlp_out"), reference.facts(BLOCK_SITES, target), reference.top("attn_out", 3)
    one_image = reference.recording.tokens.count * zoo.CLASSES
    for scratch, batch_size in ((1, 1), (1, 32), (2 * one_image, 2), (2**20, 1), (2**20, 32)):
        monkeypatch.setattr(class_logits, "logits_at_once", lambda _, scratch=scratch: scratch)
        monkeypatch.setattr(scores, "logits_at_once", lambda _, scratch=scratch: scratch)
        trace = lens.trace(pixels, batch_size=batch_size)
        # Products of other shapes may sum in another order: 1e-15 of numbers of order 10, and the same ranks.
        np.testing.assert_allclose(trace.logits("mlp_out"), logits, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(trace.top("attn_out", 3), top)
        reduced = lens.facts(pixels, BLOCK_SITES, target, batch_size=batch_size)
        for regrouped in (trace.facts(BLOCK_SITES, target), reduced):
            np.testing.assert_allclose(regrouped.logit, facts.logit, rtol=0, atol=1e-12)
            np.testing.assert_array_equal(regrouped["rank"], facts["rank"])
            np.testing.assert_array_equal(regrouped.top1, facts.top1)


@pytest.mark.parametrize("name", zoo.KINDS)
def test_top_is_the_head_of_the_sorted_row(name: str) -> None:
    trace = _traced(name)
    for site, k in (*((site, 4) for site in SITES), ("mlp_out", 1), ("resid_post", zoo.CLASSES)):
        top = trace.top(site, k)
        logits = trace.logits(site).values
        expected = np.argsort(-logits, axis=-1, kind="stable")[..., :k]
        assert top.dims == ("image", "block", "token", "place")
        np.testing.assert_array_equal(top, expected)
        falling = np.take_along_axis(logits, expected, axis=-1)
        np.testing.assert_allclose(top.logit, falling, rtol=0, atol=1e-12)
        names = [[[[f"class {index}" for index in token] for token in block] for block in image] for image in expected]
        assert top.class_name.values.tolist() == names


def _spoiled(value: float, index: int) -> classlens.Trace:
    """A trace whose class embedding went bad after the self-check had passed."""
    model: Any = zoo.build("cls")
    trace = classlens.load(model).trace(zoo.pixels("cls"))
    model.head.bias.data[index] = value  # a write that no version counts
    return trace


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_raise(value: float) -> None:
    trace = _spoiled(value, 4)
    for target in (0, 4):
        for sites in ("mlp_out", ("attn_out", "mlp_out", "resid_post")):
            with pytest.raises(classlens.ClasslensError, match="class logits are not finite"):
                trace.facts(sites, target)
        with pytest.raises(classlens.ClasslensError, match="not finite"):
            trace.identifiability("resid_post", target)
    for ask in (trace.logits, trace.top):
        with pytest.raises(classlens.ClasslensError, match="not finite"):
            ask("attn_out")


def test_a_logit_of_minus_infinity_raises_where_it_matters() -> None:
    trace = _spoiled(-float("inf"), 4)
    with pytest.raises(classlens.ClasslensError, match="not finite"):
        trace.rank("mlp_out", 4)
    with pytest.raises(classlens.ClasslensError, match="not finite"):
        trace.logits("mlp_out")
    with pytest.raises(classlens.ClasslensError, match="not finite"):
        trace.top("mlp_out", zoo.CLASSES)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_raise(value: float) -> None:
    lens, pixels = classlens.load(zoo.build("cls")), zoo.pixels("cls")
    pixels[1, 0, 3, 3] = value
    with pytest.raises(classlens.ClasslensError, match="not finite"):
        lens.facts(pixels, "resid_post", 0)
    with pytest.raises(classlens.ClasslensError, match="not finite"):
        lens.trace(pixels).rank("resid_post", 0)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda trace: trace.logits("resid_posts"), "'resid_posts' is not known; did you mean 'resid_post'"),
        (lambda trace: trace.facts((), 0), "no sites were given"),
        (lambda trace: trace.facts(("embed", "mlp_out"), 0), "'embed' has one block"),
        (lambda trace: trace.top("embed", 0), "k 0 cannot be used: give a whole number from 1 to 11"),
        (lambda trace: trace.top("embed", 12), "k 12 cannot be used: give a whole number from 1 to 11"),
        (lambda trace: trace.rank("embed", 11), "class 11 is not one of this model's 11 classes"),
        (lambda trace: trace.rank("embed", -1), "class -1 is not one of"),
        (lambda trace: trace.rank("embed", "clas 3"), "did you mean"),
        (lambda trace: trace.rank("embed", [0, 1]), "2 target classes were given for 3 images"),
        (lambda trace: trace.rank("embed", Tensor([0, 1]).long()), "2 target classes were given for 3 images"),
    ],
)
def test_what_cannot_be_asked_is_named(ask: Any, message: str) -> None:
    refused(lambda: ask(_traced("cls")), message)
