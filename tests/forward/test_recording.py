"""What is kept of a forward pass, and the sums it stands for."""

from __future__ import annotations

import pytest
import torch

import classlens
from classlens.forward.recorder import record
from classlens.models.view import SITES
from tests import literal, zoo


@pytest.mark.parametrize(("name", "dtype"), zoo.PRECISIONS)
def test_sums_of_what_is_kept_are_the_model_s_own_states(name: str, dtype: torch.dtype) -> None:
    """Law 1 bit for bit, as the sums are taken in the model's order."""
    view, pixels = classlens.load(zoo.build(name, dtype)).view, zoo.pixels(name, dtype=dtype)
    recording = record(view, pixels)
    expected = literal.states(view.module, pixels)
    everything = slice(0, len(pixels))
    for site in SITES:
        found = dict(recording.walk(site, everything))
        assert list(found) == list(range(len(expected[site])))
        for block, state in found.items():
            assert torch.equal(state, expected[site][block]), (site, block)
            assert torch.equal(recording.state(site, block, slice(1, 2)), expected[site][block][1:2])
    with torch.no_grad():
        assert torch.equal(recording.logits, view.module(pixels))
    assert len(recording) == len(pixels)
    assert not recording.logits.requires_grad


@pytest.mark.parametrize("name", zoo.KINDS)
def test_batches_are_put_together_in_order(name: str) -> None:
    view, pixels = classlens.load(zoo.build(name)).view, zoo.pixels(name, images=5)
    whole = record(view, pixels, batch_size=32)
    for batch_size in (1, 2, 4, 5):
        parts = record(view, pixels, batch_size=batch_size)
        # Matrix products of other sizes may sum in another order, so float64 keeps 1e-15 of values of order 10.
        torch.testing.assert_close(parts.logits, whole.logits, rtol=0, atol=1e-12)
        assert parts.activation("embed", 0).shape[0] == 5
        for site in SITES:
            for (_, one), (_, other) in zip(parts.walk(site, slice(0, 5)), whole.walk(site, slice(0, 5)), strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
        for block in range(3):
            one, other = (recording.activation("values", block) for recording in (parts, whole))
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_what_is_kept_outlives_the_next_pass() -> None:
    view, pixels = classlens.load(zoo.build("cls")).view, zoo.pixels("cls")
    recording = record(view, pixels)
    before = [state.clone() for _, state in recording.walk("resid_post", slice(0, 3))]
    record(view, pixels.flip(0))
    for old, (_, state) in zip(before, recording.walk("resid_post", slice(0, 3)), strict=True):
        assert torch.equal(old, state)
