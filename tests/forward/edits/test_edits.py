"""Edits against the same change made by hand with the model's own modules, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import classlens
from classlens import (
    AblateHeads,
    AblateNeurons,
    AblateSublayer,
    ClasslensError,
    CutAttention,
    KeepTokens,
    Lens,
    NoCls,
    Patch,
    SelfOnly,
)
from classlens.forward.edits.edits import Edit, editing
from tests import zoo
from tests.models.library_models import MODELS

Weights = Callable[[int, Tensor], Tensor]
Heads = Callable[[int, Tensor], Tensor]
Hidden = Callable[[int, Tensor], Tensor]


def same(_: int, x: Tensor) -> Tensor:
    return x


@torch.no_grad()
def by_hand(
    model: Any, pixels: Tensor, weights: Weights = same, heads: Heads = same, hidden: Hidden = same, mlp: Hidden = same
) -> Tensor:
    """A plain timm ViT, its attention written out; the functions are given the block and change what passes."""
    x = model._pos_embed(model.patch_embed(pixels))
    for number, block in enumerate(model.blocks):
        attn = block.attn
        given = block.norm1(x)
        q, k, v = attn.qkv(given).unflatten(-1, (3, attn.num_heads, attn.head_dim)).permute(2, 0, 3, 1, 4)
        a = weights(number, ((q @ k.transpose(-2, -1)) / attn.head_dim**0.5).softmax(dim=-1))
        x = x + block.ls1(attn.proj(heads(number, a @ v).transpose(1, 2).flatten(2)))
        inside = hidden(number, block.mlp.act(block.mlp.fc1(block.norm2(x))))
        x = x + mlp(number, block.ls2(block.mlp.fc2(inside)))
    logits: Tensor = model.forward_head(model.norm(x))
    return logits


@pytest.fixture
def model() -> Any:
    return zoo.build("cls_layer_scale")


@pytest.fixture
def x() -> Tensor:
    return zoo.pixels("cls_layer_scale")


def edited(model: Any, x: Tensor, *edits: Edit) -> Tensor:
    lens = classlens.load(model)
    with lens.edit(*edits), torch.no_grad():
        logits: Tensor = model(x)
    return logits


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


def test_the_twin_is_the_model(model: Any, x: Tensor) -> None:
    with torch.no_grad():
        close(by_hand(model, x), model(x))


def test_self_only(model: Any, x: Tensor) -> None:
    def alone(_: int, a: Tensor) -> Tensor:
        a = a.clone()
        for query in range(1, 5):
            a[:, :, query] = 0
            a[:, :, query, query] = 1
        return a

    close(edited(model, x, SelfOnly()), by_hand(model, x, alone))


def test_some_blocks_and_heads(model: Any, x: Tensor) -> None:
    def alone(number: int, a: Tensor) -> Tensor:
        a = a.clone()
        if number in (0, 2):
            for query in range(1, 5):
                a[:, [0, 2], query] = 0
                a[:, [0, 2], query, query] = 1
        return a

    close(edited(model, x, SelfOnly(blocks=[0, 2], heads=[2, 0])), by_hand(model, x, alone))


@pytest.mark.parametrize("renormalize", [False, True])
def test_no_cls(model: Any, x: Tensor, renormalize: bool) -> None:
    def unseen(_: int, a: Tensor) -> Tensor:
        a = a.clone()
        a[:, :, 1:, 0] = 0
        if renormalize:
            a[:, :, 1:] = a[:, :, 1:] / a[:, :, 1:].sum(dim=-1, keepdim=True)
        return a

    close(edited(model, x, NoCls(renormalize=renormalize)), by_hand(model, x, unseen))


def test_any_groups_of_tokens(model: Any, x: Tensor) -> None:
    keys = torch.tensor([[0, 1, 0, 1, 0], [1, 0, 0, 0, 1], [0, 0, 1, 0, 0]]).bool()

    def cut(_: int, a: Tensor) -> Tensor:
        a = a.clone()
        for image in range(3):
            for query in (0, 3):
                for key in range(5):
                    if keys[image, key]:
                        a[image, :, query, key] = 0
        return a

    close(edited(model, x, CutAttention(queries=[0, 3], keys=keys)), by_hand(model, x, cut))


def test_ablated_heads(model: Any, x: Tensor) -> None:
    def zero(number: int, y: Tensor) -> Tensor:
        y = y.clone()
        if number == 1:
            y[:, [0, 2], 1:] = 0
        return y

    def mean(_: int, y: Tensor) -> Tensor:
        y = y.clone()
        y[:, 1] = y[:, 1].mean(dim=0)
        return y

    close(edited(model, x, AblateHeads([0, 2], blocks=1, tokens="image")), by_hand(model, x, heads=zero))
    close(edited(model, x, AblateHeads([1], to="mean")), by_hand(model, x, heads=mean))


def test_ablated_neurons_and_sublayers(model: Any, x: Tensor) -> None:
    values = torch.tensor([0.5, -2.0], dtype=torch.float64)

    def some(number: int, h: Tensor) -> Tensor:
        h = h.clone()
        if number == 2:
            h[..., [7, 3]] = values
        return h

    close(edited(model, x, AblateNeurons([7, 3], blocks=[2], to=values)), by_hand(model, x, hidden=some))
    nothing = by_hand(model, x, mlp=lambda number, added: added * (number != 0))
    close(edited(model, x, AblateSublayer("mlp", blocks=0)), nothing)


def test_edits_add_up_in_their_order(model: Any, x: Tensor) -> None:
    def both(_: int, a: Tensor) -> Tensor:
        a = a.clone()
        a[:, :, 1:, 0] = 0
        a[:, :, 0, 2] = 0
        return a

    expected = by_hand(model, x, both, heads=lambda _, y: y * torch.tensor([1.0, 0, 1]).view(3, 1, 1))
    edits = (NoCls(), CutAttention("cls", [2]), AblateHeads([1]))
    close(edited(model, x, *edits), expected)
    lens = classlens.load(model)
    with lens.edit(edits[0]), lens.edit(edits[1]), lens.edit(edits[2]), torch.no_grad():
        close(model(x), expected)


@pytest.mark.parametrize("name", ["cls_layer_scale", "avg_excludes_cls", "avg_norm_before_pool", "avg_includes_prefix"])
def test_kept_tokens_are_what_dropping_the_others_gives(name: str) -> None:
    model, x = zoo.build(name), zoo.pixels(name)
    prefix = len(zoo.VARIANTS[name].prefix)
    kept = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]]).bool()
    mask = torch.cat([torch.ones(3, prefix, dtype=torch.bool), kept], dim=1)
    found = edited(model, x, KeepTokens(mask))
    for image in range(3):
        with torch.no_grad():
            tokens = model._pos_embed(model.patch_embed(x[image : image + 1]))[:, mask[image]]
            for block in model.blocks:
                tokens = block(tokens)
            close(found[image : image + 1], model.forward_head(model.norm(tokens)))


def test_facts_of_kept_tokens(model: Any, x: Tensor) -> None:
    """What is measured within the context is edited as well."""
    lens = classlens.load(model)
    mask = torch.tensor([True, False, True, True, False])
    with lens.edit(KeepTokens(mask)):
        facts = lens.facts(x, "resid_post", 3)
    with torch.no_grad():
        tokens = model._pos_embed(model.patch_embed(x))[:, mask]
        for number, block in enumerate(model.blocks):
            tokens = block(tokens)
            logits = model.head(model.fc_norm(model.norm(tokens)))[..., 3]
            torch.testing.assert_close(torch.as_tensor(facts["logit"].values[:, 0, number][:, mask]), logits)


@pytest.mark.parametrize("site", ["embed", "resid_pre", "attn_out", "mlp_out", "resid_post"])
def test_a_patch_from_the_own_image_changes_nothing(site: str, model: Any, x: Tensor) -> None:
    with torch.no_grad():
        close(edited(model, x, Patch(site, source=x, tokens=[1, 2])), model(x))


def test_patches(model: Any, x: Tensor) -> None:
    other = zoo.pixels("cls_layer_scale", 1, seed=5)
    with torch.no_grad():
        expected = model(other).expand(3, -1)
        for site, blocks in (("resid_post", 2), ("resid_pre", 1), ("resid_pre", 0), ("embed", None)):
            close(edited(model, x, Patch(site, source=other, blocks=blocks)), expected)
    found: dict[int, Tensor] = {}
    by_hand(model, other, heads=lambda number, y: found.setdefault(number, y))

    def theirs(number: int, y: Tensor) -> Tensor:
        y = y.clone()
        if number == 1:
            y[:, 2, [0, 4]] = found[1][:, 2, [0, 4]]
        return y

    patch = Patch("heads", source=other, blocks=1, heads=[2], tokens=[0, 4])
    close(edited(model, x, patch), by_hand(model, x, heads=theirs))


def test_a_patched_stream_still_adds_up(model: Any, x: Tensor) -> None:
    lens = classlens.load(model)
    other = zoo.pixels("cls_layer_scale", 1, seed=5)
    with lens.edit(Patch("resid_post", source=other, blocks=1, tokens="image")):
        assert lens.check(x).law1 < 1e-12
        states = lens.trace(x).recording.state("resid_post", 1, slice(None))
    theirs = lens.trace(other).recording.state("resid_post", 1, slice(None))
    torch.testing.assert_close(states[:, 1:], theirs[:, 1:].expand(3, -1, -1), rtol=0, atol=1e-12)


class Interrupted(Exception):
    pass


EDITS: dict[str, Callable[[Lens, Tensor], Edit]] = {
    "self only": lambda *_: SelfOnly(),
    "cut": lambda *_: CutAttention("all", [1], renormalize=True),
    "keep": lambda lens, x: KeepTokens(torch.arange(count := lens.view.tokens(size(x)).count) != count - 1),
    "heads": lambda *_: AblateHeads([1], to="mean"),
    "neurons": lambda *_: AblateNeurons([0, 5], blocks=[0]),
    "sublayer": lambda *_: AblateSublayer("attn", blocks=[1]),
    "patch": lambda _, x: Patch("mlp_out", source=x[:1], blocks=[0]),
    "stream": lambda _, x: Patch("resid_post", source=x[:1], blocks=[0], tokens="image"),
}


def size(x: Tensor) -> tuple[int, int]:
    return int(x.shape[2]), int(x.shape[3])


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("name", MODELS)
def test_every_edit_acts_on_every_family_and_leaves_no_trace(name: str, edit: str) -> None:
    lens = classlens.load(MODELS[name]())
    view = lens.view
    x = torch.randn(2, view.channels, *view.input_size, dtype=view.dtype, generator=torch.Generator().manual_seed(3))
    before = zoo.snapshot(view.module)
    with torch.no_grad():
        expected = view.run(x)
    made = EDITS[edit](lens, x)

    def run(fails: bool) -> Iterator[Tensor]:
        with lens.edit(made), torch.no_grad():
            yield view.run(x)
            if fails:
                raise Interrupted

    (changed,) = run(fails=False)
    assert bool(torch.isfinite(changed).all())
    assert float((changed - expected).abs().max()) > 1e-6, "the edit does something"
    with pytest.raises(Interrupted):
        list(run(fails=True))
    assert zoo.snapshot(view.module) == before
    with torch.no_grad():
        assert torch.equal(view.run(x), expected)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (SelfOnly(blocks=[3]), "block 3 does not exist"),
        (SelfOnly(heads=[-1]), "head -1 does not exist"),
        (AblateHeads([]), "no heads were given"),
        (AblateNeurons([48]), "unit 48 does not exist"),
        (CutAttention("dist", "image"), "no tokens called 'dist'"),
        (CutAttention([5], "image"), "token 5 does not exist"),
        (CutAttention("image", torch.ones(4, dtype=torch.bool)), "a mask of shape [4] was given for 5 tokens"),
        (CutAttention("image", [0.5]), "give whole numbers"),  # type: ignore[list-item]
        (AblateSublayer("norm"), "sublayer 'norm' is not known"),  # type: ignore[arg-type]
        (Patch("logits", torch.zeros(1, 3, 16, 16)), "site 'logits' cannot be patched"),
        (Patch("heads", torch.zeros(1, 3, 16, 16)), "give both or neither"),
    ],
)
def test_mistakes_are_told_on_entering(model: Any, edit: Edit, says: str) -> None:
    lens = classlens.load(model)
    before = zoo.snapshot(model)
    with pytest.raises(ClasslensError) as error:
        with lens.edit(SelfOnly(), edit):
            pytest.fail("entered")
    assert says in str(error.value)
    assert zoo.snapshot(model) == before


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (AblateHeads([0], to="mean"), "mean over the images of a batch"),
        (AblateHeads([0], to=torch.zeros(3)), "give one that fits"),
        (AblateSublayer("mlp", to="max"), "give zero, mean or a tensor"),  # type: ignore[arg-type]
        (KeepTokens(torch.ones(2, 5, dtype=torch.bool)), "tokens of 2 images were given, but 1 run at once"),
    ],
)
def test_mistakes_that_show_when_the_model_runs(model: Any, x: Tensor, edit: Edit, says: str) -> None:
    before = zoo.snapshot(model)
    with pytest.raises(ClasslensError) as error:
        edited(model, x[:1], edit)
    assert says in str(error.value)
    assert zoo.snapshot(model) == before


def test_no_cls_needs_one() -> None:
    lens = classlens.load(zoo.build("avg"))
    with pytest.raises(ClasslensError, match="no tokens called 'cls'"):
        with editing(lens.view, (NoCls(),)):
            pytest.fail("entered")
