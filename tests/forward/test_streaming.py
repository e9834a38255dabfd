"""Tokens handed over while the model runs, and their facts, against timm's own modules one by one."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import classlens
from classlens.core.probes import LinearProbes
from classlens.core.scores import Facts
from classlens.forward import streaming
from classlens.forward.run import run
from classlens.forward.streaming import reduce_tokens, stream
from classlens.models.view import SITES
from tests import literal, zoo


@pytest.mark.parametrize("name", zoo.KINDS)
def test_every_site_once(name: str) -> None:
    model, pixels = zoo.build(name), zoo.pixels(name)
    before = zoo.snapshot(model)
    states: dict[tuple[str, int], Tensor] = {}
    count: Counter[tuple[str, int]] = Counter()

    def receive(site: str, block: int, x: Tensor) -> None:
        count[site, block] += 1
        states[site, block] = x

    logits = stream(classlens.load(model).view, pixels, SITES, receive)
    expected = {
        (site, block): x for site, blocks in literal.states(model, pixels).items() for block, x in enumerate(blocks)
    }
    assert count == Counter(expected.keys())
    for key, x in expected.items():
        torch.testing.assert_close(states[key], x, rtol=0, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(logits, model(pixels), rtol=0, atol=1e-12)
    assert not logits.requires_grad
    assert zoo.snapshot(model) == before


@pytest.mark.parametrize("names", [(), ("mlp_out",), SITES])
@pytest.mark.parametrize("name", [*zoo.KINDS, "avg_post_norm"])
def test_inputs_and_outputs_of_blocks(name: str, names: tuple[str, ...]) -> None:
    model, pixels = zoo.build(name), zoo.pixels(name)
    passed: dict[str, list[Tensor]] = {"inputs": [], "outputs": []}

    def receive(end: str, block: int, x: Tensor) -> None:
        assert block == len(passed[end])
        passed[end].append(x)

    ends = {end: partial(receive, end) for end in passed}
    stream(classlens.load(model).view, pixels, names, lambda *_: None, **ends)
    states = literal.states(model, pixels)
    for end, site in (("inputs", "resid_pre"), ("outputs", "resid_post")):
        assert len(passed[end]) == 3
        for x, expected in zip(passed[end], states[site], strict=True):
            torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("site", SITES)
def test_one_site_alone(site: str) -> None:
    model, pixels = zoo.build("cls_layer_scale"), zoo.pixels("cls_layer_scale")
    expected = literal.states(model, pixels)[site]
    passed: list[tuple[str, int, Tensor]] = []
    stream(classlens.load(model).view, pixels, [site], lambda *each: passed.append(each))
    assert [each[:2] for each in passed] == [(site, block) for block in range(len(expected))]
    for (*_, x), other in zip(passed, expected, strict=True):
        torch.testing.assert_close(x, other, rtol=0, atol=1e-12)


def test_points_come_before_the_output_of_their_sublayer(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def recorded(*args: Any, **options: Any) -> torch.Tensor:
        calls.append(options)
        return run(*args, **options)

    monkeypatch.setattr(streaming, "run", recorded)
    view, passed = classlens.load(zoo.build("cls_rms_post_norm")).view, []
    names = ["mlp_out", "mlp_coefficients", "attn_raw", "values", "attn_joined", "attn_out"]
    stream(view, zoo.pixels("cls_rms_post_norm"), names, lambda name, block, _: passed.append((name, block)))
    order = ("values", "attn_raw", "attn_out", "mlp_coefficients", "mlp_out")
    assert passed == [(name, block) for block in range(3) for name in order], "a point that blocks lack is skipped"
    stream(view, zoo.pixels("cls_rms_post_norm"), ["attention"], lambda *_: None)
    stream(view, zoo.pixels("cls_rms_post_norm"), ["values"], lambda *_: None)
    assert calls == [
        {"unfused": False, "exposing_coefficients": True},
        {"unfused": True, "exposing_coefficients": False},
        {"unfused": False, "exposing_coefficients": False},
    ]


def test_nothing_is_summed_that_nobody_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    view, pixels = classlens.load(zoo.build("cls")).view, zoo.pixels("cls")
    watched: list[set[str]] = []

    def recorded(*args: Any, **options: Any) -> torch.Tensor:
        watched.append(set(args[2]))
        return run(*args, **options)

    monkeypatch.setattr(streaming, "run", recorded)
    for names in (["attn_out", "values"], ["embed"], ["mlp_out"], ["resid_mid"]):
        stream(view, pixels, names, lambda *_: None)
    sums = {"resid_pre", "attn_out", "mlp_out"}
    assert watched == [{"attn_out", "values"}, {"resid_pre"}, {"mlp_out"}, sums]


@pytest.mark.parametrize("name", zoo.KINDS)
def test_facts_of_every_site_of_every_block_once(name: str) -> None:
    view, pixels, target = classlens.load(zoo.build(name)).view, zoo.pixels(name), zoo.targets()
    states = literal.states(view.module, pixels)
    order: list[tuple[str, int]] = []

    def receive(site: str, block: int, tokens: Tensor | slice, facts: Facts) -> None:
        order.append((site, block))
        with torch.no_grad():
            logits = literal.class_logits(view.module, states[site][block])[:, tokens]
        own = logits.gather(-1, target[:, None, None].expand(*logits.shape[:2], 1))
        torch.testing.assert_close(facts.logit, own.flatten(), rtol=0, atol=1e-11)
        assert torch.equal(facts.rank, (logits > own + 1e-9).sum(dim=-1).flatten())
        assert torch.equal(facts.top1, logits.argmax(dim=-1).flatten())

    before = zoo.snapshot(view.module)
    logits = reduce_tokens(view, pixels, target, ("mlp_out", "resid_pre", "resid_post", "attn_out"), receive)
    assert order == [(site, block) for block in range(3) for site in ("resid_pre", "attn_out", "mlp_out", "resid_post")]
    with torch.no_grad():
        assert torch.equal(logits, view.module(pixels))
    assert zoo.snapshot(view.module) == before


def test_scores_of_probes_take_the_place_of_class_logits() -> None:
    view, pixels, target = classlens.load(zoo.build("cls")).view, zoo.pixels("cls"), zoo.targets()
    states = literal.states(view.module, pixels)
    generator = torch.Generator().manual_seed(0)
    groups = (slice(0, 1), slice(1, 5))
    probes = [
        LinearProbes(
            torch.randn(1, 24, 7, generator=generator, dtype=torch.float64),
            torch.randn(1, 7, generator=generator, dtype=torch.float64),
            tokens,
        )
        for tokens in groups
    ]
    order: list[tuple[str, int, slice]] = []

    def receive(site: str, block: int, tokens: Tensor | slice, facts: Facts) -> None:
        assert isinstance(tokens, slice)
        order.append((site, block, tokens))
        probe = probes[groups.index(tokens)]
        scores = states[site][block][:, tokens] @ probe.weight[0] + probe.bias[0]
        assert torch.equal(facts.top1, scores.argmax(dim=-1).flatten())

    sites = ("resid_mid", "resid_post")
    logits = reduce_tokens(view, pixels, target % 7, sites, receive, probes=lambda site, block: probes[: 2 - block % 2])
    assert order == [
        (site, block, tokens) for block in range(3) for site in sites for tokens in groups[: 2 - block % 2]
    ]
    with torch.no_grad():
        assert torch.equal(logits, view.module(pixels))


def test_a_receiver_that_raises_leaves_no_trace() -> None:
    view, pixels = classlens.load(zoo.build("cls")).view, zoo.pixels("cls")
    view.module.train()
    before = zoo.snapshot(view.module)

    def receive(*_: object) -> None:
        raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        reduce_tokens(view, pixels, zoo.targets(), ("attn_out",), receive)
    assert zoo.snapshot(view.module) == before
    assert torch.is_grad_enabled()
