"""Facts while the model runs: the same numbers as from what a recording keeps, handed over in order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import classlens
from classlens.core.scores import Facts
from classlens.forward.streaming import reduce
from tests import literal, zoo


@pytest.mark.parametrize("name", zoo.KINDS)
def test_hands_over_every_site_of_every_block_once(name: str) -> None:
    view, pixels, target = classlens.load(zoo.build(name)).view, zoo.pixels(name), zoo.targets()
    states = literal.states(view.module, pixels)
    seen: list[tuple[str, int]] = []

    def put(site: str, block: int, tokens: Tensor | slice, facts: Facts) -> None:
        seen.append((site, block))
        with torch.no_grad():
            logits = literal.class_logits(view.module, states[site][block])[:, tokens]
        own = logits.gather(-1, target[:, None, None].expand(*logits.shape[:2], 1))
        torch.testing.assert_close(facts.logit, own.flatten(), rtol=0, atol=1e-11)
        assert torch.equal(facts.rank, (logits > own + 1e-9).sum(dim=-1).flatten())
        assert torch.equal(facts.top1, logits.argmax(dim=-1).flatten())

    before = zoo.snapshot(view.module)
    logits = reduce(view, pixels, target, ("mlp_out", "resid_pre", "resid_post", "attn_out"), put)
    assert seen == [(site, block) for block in range(3) for site in ("resid_pre", "attn_out", "mlp_out", "resid_post")]
    with torch.no_grad():
        assert torch.equal(logits, view.module(pixels))
    assert zoo.snapshot(view.module) == before


def test_a_receiver_that_raises_leaves_no_trace() -> None:
    view, pixels = classlens.load(zoo.build("cls")).view, zoo.pixels("cls")
    view.module.train()
    before = zoo.snapshot(view.module)

    def put(*_: object) -> None:
        raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"):
        reduce(view, pixels, zoo.targets(), ("attn_out",), put)
    assert zoo.snapshot(view.module) == before
    assert torch.is_grad_enabled()
