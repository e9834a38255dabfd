"""The tokens at every site, handed over while the model runs, against timm's own modules one by one."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

import classlens
from classlens.forward.states import read_states
from classlens.models.view import SITES
from tests import literal, zoo


@pytest.mark.parametrize("name", zoo.KINDS)
def test_every_site_once(name: str) -> None:
    model, pixels = zoo.build(name), zoo.pixels(name)
    before = zoo.snapshot(model)
    seen: dict[tuple[str, int], Tensor] = {}
    count: Counter[tuple[str, int]] = Counter()

    def receive(site: str, block: int, x: Tensor) -> None:
        count[site, block] += 1
        seen[site, block] = x

    logits = read_states(classlens.load(model).view, pixels, SITES, receive)
    expected = {
        (site, block): x for site, found in literal.states(model, pixels).items() for block, x in enumerate(found)
    }
    assert count == Counter(expected.keys())
    for key, x in expected.items():
        torch.testing.assert_close(seen[key], x, rtol=0, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(logits, model(pixels), rtol=0, atol=1e-12)
    assert not logits.requires_grad
    assert zoo.snapshot(model) == before


def test_some_sites_alone() -> None:
    lens, seen = classlens.load(zoo.build("cls")), []
    read_states(lens.view, zoo.pixels("cls"), ["mlp_out"], lambda site, block, _: seen.append((site, block)))
    assert seen == [("mlp_out", 0), ("mlp_out", 1), ("mlp_out", 2)]
