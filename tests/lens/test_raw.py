"""Attention, states and norms of a trace: what is asked for, and only that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import classlens
from classlens import KeepTokens, NoCls
from classlens.models.view import SITES
from tests import literal, zoo
from tests.forward.models import weights_in_steps
from tests.refusals import refused

NAME = "cls_registers"  # cls, reg0, reg1 and 4 image tokens; 3 blocks of 3 heads


@pytest.fixture(scope="module")
def trace() -> classlens.lens.trace.Trace:
    return classlens.load(zoo.build(NAME)).trace(zoo.pixels(NAME), batch_size=2)


def test_parts_of_the_attention(trace: Any) -> None:
    everything = trace.attention(queries="all")
    assert everything.shape == (3, 3, 3, 7, 7)
    assert everything["query"].values.tolist() == everything.token.values.tolist() == list(range(7))
    np.testing.assert_allclose(everything.sum("token"), 1, rtol=0, atol=1e-12)
    part = trace.attention([2, 0, 2], np.array([1]), [5, 0])
    assert (part.block.values.tolist(), part["head"].values.tolist(), part["query"].values.tolist()) == (
        [2, 0],
        [1],
        [0, 5],
    )
    np.testing.assert_allclose(part, everything.sel(block=[2, 0], head=[1], query=[0, 5]), rtol=0, atol=1e-12)
    assert part.query_kind.values.tolist() == ["cls", "image"]
    assert (part.query_row.values.tolist(), part.query_column.values.tolist()) == ([-1, 1], [-1, 0])
    assert part.token_kind.values.tolist() == trace.rank().token_kind.values.tolist()
    assert trace.attention()["query"].values.tolist() == [0]
    mask = torch.tensor([False, True, False, False, False, False, True])
    assert trace.attention(queries=mask)["query"].values.tolist() == [1, 6]


@pytest.mark.parametrize("name", ["cls", "avg_registers", "cls_post_norm"])
def test_states_are_the_model_s_own(name: str) -> None:
    model, pixels = zoo.build(name), zoo.pixels(name)
    trace, expected = classlens.load(model).trace(pixels), literal.states(model, pixels)
    for site in SITES:
        states = trace.states(site)
        assert states.dims == ("image", "block", "token", "width")
        for number, block in enumerate(states.block.values):
            np.testing.assert_array_equal(states[:, number], expected[site][block])


def test_parts_of_the_states(trace: Any) -> None:
    everything = trace.states("mlp_out")
    part = trace.states("mlp_out", [1, 0], "prefix")
    assert (part.block.values.tolist(), part.token_kind.values.tolist()) == ([1, 0], ["cls", "reg0", "reg1"])
    np.testing.assert_array_equal(part, everything.sel(block=[1, 0])[:, :, :3])
    assert trace.states("embed", tokens="pooled").shape == (3, 1, 1, 24)


def test_pooled_queries_of_two_readouts() -> None:
    from tests.models.tiny_timm import FAMILIES

    tiny = FAMILIES["DeiT distilled"]
    trace = classlens.load(tiny.make()).trace(tiny.pixels())
    assert trace.attention().query_kind.values.tolist() == ["cls", "dist"]


def test_attention_of_an_edited_pass() -> None:
    """The pooled queries are those of the pass; others take another one, within the same edits."""
    lens, pixels = classlens.load(zoo.build(NAME)), zoo.pixels(NAME)
    edit = NoCls()
    with lens.edit(edit):
        trace = lens.trace(pixels)
        expected = torch.stack(weights_in_steps(lens.view, pixels), dim=1).numpy()
        np.testing.assert_allclose(trace.attention(queries="all"), expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(
            trace.attention([1], [0], "image"), expected[:, [1]][:, :, [0], 3:], rtol=0, atol=1e-12
        )
    assert float(abs(trace.attention(blocks=[2]) - expected[:, [2], :, :1]).max()) < 1e-12
    refused(lambda: trace.attention(queries="all"), "these images ran with NoCls")


def test_norms() -> None:
    model: Any = zoo.build("avg")
    with torch.no_grad():
        model.pos_embed[0, 2] *= 400  # one image token that stands out from the first block on
    lens = classlens.load(model)
    trace = lens.trace(zoo.pixels("avg"))
    norms = trace.norms()
    for block, state in enumerate(literal.states(model, zoo.pixels("avg"))["resid_post"]):
        np.testing.assert_allclose(norms.norm[:, block], state.square().sum(dim=-1).sqrt(), rtol=1e-12)
    assert norms.outlier.dtype == bool
    np.testing.assert_array_equal(norms.outlier.any("image").any("block"), [False, False, True, False])
    some = trace.norms("attn_out", [2])
    np.testing.assert_allclose(some.norm, (trace.states("attn_out", [2]) ** 2).sum("width") ** 0.5, rtol=1e-12)
    # Without the token that stands out, the others are compared among themselves, and it is none of them.
    with lens.edit(KeepTokens(np.arange(4) != 2)):
        kept = lens.trace(zoo.pixels("avg")).norms()
    assert not kept.outlier[..., 2].any()
    others = kept.norm.values[..., [0, 1, 3]]
    median = np.median(others, axis=-1, keepdims=True)
    limit = median + 5 * np.median(abs(others - median), axis=-1, keepdims=True)
    np.testing.assert_array_equal(kept.outlier.values[..., [0, 1, 3]], others > limit)


def test_norms_of_prefix_tokens_are_compared_with_image_tokens(trace: Any) -> None:
    norms = trace.norms()
    image = norms.norm.values[..., 3:]
    median = np.median(image, axis=-1, keepdims=True)
    limit = median + 5 * np.median(abs(image - median), axis=-1, keepdims=True)
    np.testing.assert_array_equal(norms.outlier, norms.norm.values > limit)
    assert norms.outlier.any()


@pytest.mark.wrong_types
def test_what_does_not_exist(trace: Any) -> None:
    refused(lambda: trace.attention(blocks=3), "block 3 does not exist", "blocks 0 to 2")
    refused(lambda: trace.attention(heads=[0, 3]), "head 3 does not exist")
    refused(lambda: trace.attention(queries="dist"), "no tokens called 'dist'")
    refused(lambda: trace.attention(queries=7), "token 7 does not exist")
    refused(lambda: trace.attention(queries=torch.zeros(7, dtype=torch.bool)), "take no token")
    refused(lambda: trace.states(tokens=torch.ones(3, 7, dtype=torch.bool)), "a mask of tokens of 3 images")
    refused(lambda: trace.states("embed", [0, 1]), "block 1 has no site 'embed'", "give block 0")
    refused(lambda: trace.norms("heads"), "site")
    refused(lambda: trace.states(tokens=1.5), "tokens 1.5 cannot be used")
