"""Heads in words, on tiny models of OpenCLIP: head outputs by the model with a head taken out, and planted prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import classlens
from classlens import NoCls
from classlens.core.text_span import text_span
from classlens.forward.head_outputs import head_outputs
from tests import zoo
from tests.models.oracles import pixels
from tests.refusals import refused

pytest.importorskip("open_clip")

from classlens.models.open_clip_text import ZeroShotClassifier
from tests.models.tiny_open_clip import VARIANTS, tokenizer, zero_shot
from tests.models.tiny_timm import FAMILIES

PROMPTS = ["red", "something round", "a photo of two dogs", "water", "night", "a drawing"]


def by_parts(module: Any, x: Tensor, block: int, head: int) -> Tensor:
    """The embedding with frozen norms, of what one head adds: the model's own modules, one head at a time."""
    visual, name = module.model.visual, "avg" if module.model.visual.pool_type == "avg" else "tok"
    chosen, last, joined = visual.transformer.resblocks[block], [], []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        attn, y = chosen.attn, inputs[0]
        weight, bias = attn.in_proj_weight, attn.in_proj_bias
        query, key, value = (y @ w.T + b for w, b in zip(weight.chunk(3), bias.chunk(3), strict=True))
        part = slice(head * attn.head_dim, (head + 1) * attn.head_dim)
        scores = query[..., part] @ key[..., part].mT / attn.head_dim**0.5
        joined.append((scores.softmax(dim=-1) @ value[..., part]) @ attn.out_proj.weight[:, part].T)

    handles = [
        chosen.ln_1.register_forward_hook(lambda m, i, o: keep(m, (o,), o)),
        visual.transformer.register_forward_hook(lambda m, i, o: last.append(o)),
    ]
    with torch.no_grad():
        embedding = module.model.encode_image(x)
        for handle in handles:
            handle.remove()
        added = joined[0] * chosen.ls_1.gamma if hasattr(chosen.ls_1, "gamma") else joined[0]
        tokens, norm = last[0], visual.ln_post
        pool = (lambda t: t[:, 1:].mean(dim=1)) if name == "avg" else (lambda t: t[:, 0])
        if visual.final_ln_after_pool:
            tokens, added, pool = pool(tokens), pool(added), lambda t: t
        sigma = (tokens.var(dim=-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
        normed = (added - added.mean(dim=-1, keepdim=True)) / sigma * norm.weight
        output: Tensor = pool(normed) @ visual.proj / embedding.norm(dim=-1, keepdim=True)
    return output


@pytest.mark.parametrize("name", ["cls", "layer_scale", "avg", "avg_norm_after_pool", "odd_heads"])
def test_head_outputs_are_those_of_the_frozen_model(name: str) -> None:
    torch.manual_seed(0)
    module, x = zero_shot(name), pixels(3, VARIANTS[name].size)
    view = classlens.load(module).view
    outputs = head_outputs(view, x, [2, 0])
    for number, block in enumerate((2, 0)):
        for head in range(view.blocks[block].heads):
            expected = by_parts(module, x, block, head)
            assert expected.abs().max() > 1e-3
            torch.testing.assert_close(outputs[:, number, head], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["EVA, norms inside", "EVA, post-norm, norms inside", "EVA-02-E, post-norm"])
def test_heads_of_blocks_with_norms_of_their_own_write_what_attribution_says(name: str) -> None:
    tiny = FAMILIES[name]
    lens = classlens.load(tiny.make())
    space, x = lens.view.space, tiny.pixels()
    blocks = list(range(len(lens.view.blocks)))
    logits = head_outputs(lens.view, x, blocks) @ space.weight.detach().T
    parts = lens.trace(x).attribution(3).attention
    np.testing.assert_allclose(logits[..., 3], parts, rtol=0, atol=1e-9)


def test_prompts_are_those_of_text_span() -> None:
    module, x = zero_shot("cls"), pixels(7, VARIANTS["cls"].size)
    lens = classlens.load(module)
    heads = classlens.describe_heads(lens, x, PROMPTS, blocks=[2, 1], k=3, batch_size=4)
    assert dict(heads.sizes) == {"block": 2, "head": 2, "rank": 3}
    with torch.no_grad():
        rows = module.model.encode_text(tokenizer()(PROMPTS))
    rows = rows / rows.norm(dim=-1, keepdim=True)
    outputs = head_outputs(lens.view, x, [0, 1, 2])
    for block in (1, 2):
        for head in range(2):
            span = text_span(outputs[:, block, head], rows, 3)
            of_head = heads.sel(block=block, head=head)
            assert of_head.prompt.values.tolist() == [PROMPTS[index] for index in span.text.tolist()]
            np.testing.assert_allclose(of_head.explained, span.explained, rtol=0, atol=1e-9)
    assert (heads.explained.diff("rank") > 0).all()
    assert classlens.describe_heads(lens, x, PROMPTS[:2]).sizes["rank"] == 2


def test_what_has_no_words() -> None:
    lens, x = classlens.load(zero_shot("cls")), pixels(2, VARIANTS["cls"].size)
    other = classlens.load(zoo.build("cls"))
    refused(lambda: classlens.describe_heads(other, zoo.pixels("cls"), PROMPTS), "no text tower", "OpenCLIP")
    refused(lambda: classlens.describe_heads(lens, x[:1], PROMPTS), "one image", "at least two images")
    refused(lambda: classlens.describe_heads(lens, x, []), "prompts", "at least one")
    refused(lambda: classlens.describe_heads(lens, x, PROMPTS, blocks=[3]), "block")
    with lens.edit(NoCls()):
        refused(lambda: classlens.describe_heads(lens, x, PROMPTS), "has edits")
    module = lens.view.module
    bare = classlens.load(ZeroShotClassifier(module.model, module.text, ["a"] * 5))  # type: ignore[arg-type]
    refused(lambda: classlens.describe_heads(bare, x, PROMPTS), "has no tokenizer")
