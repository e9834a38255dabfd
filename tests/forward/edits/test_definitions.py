"""Every edit against a forward pass in loops that does what the edit's definition says, to 1e-10 in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import classlens
from classlens import (
    AblateHeads,
    AblateNeurons,
    AblateSublayer,
    CutAttention,
    Edit,
    KeepTokens,
    Means,
    NoCls,
    Patch,
    SelfOnly,
)
from tests import zoo
from tests.forward.edits.random_means import random_means
from tests.forward.slow import Changes, Row, Run, States, slow

# One of each kind of block and head: LayerScale, post-norm, prefix tokens, every pooling.
NAMES = ("cls_layer_scale", "cls_qk_norm", "cls_registers", "cls_rms_post_norm", "avg", *zoo.KINDS[2:4])
CHANNELS = 8
Place = Callable[[int, States], None]


@dataclass
class Made:
    """Parts of a case: the variant, how many tokens it has and where image tokens begin, another image's run,
    and means."""

    name: str
    count: int
    start: int
    source: Tensor
    other: Run
    means: Means

    @property
    def mask(self) -> Tensor:
        """Tokens of three images; prefix tokens are in it, and another number of image tokens in each."""
        image = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]]).bool()
        return torch.cat([torch.ones(3, self.start, dtype=torch.bool), image], dim=1)


Case = Callable[[Made], tuple[list[Edit], Changes]]


def self_only(made: Made) -> tuple[list[Edit], Changes]:
    def row(_: int, __: int, ___: int, query: int, weights: Row) -> Row:
        return {key: torch.tensor(1.0 * (key == query)) for key in weights} if query >= made.start else weights

    return [SelfOnly()], Changes(row=row)


def self_only_somewhere(made: Made) -> tuple[list[Edit], Changes]:
    def row(_: int, block: int, head: int, query: int, weights: Row) -> Row:
        if block != 1 or head == 1 or query < made.start:
            return weights
        return {key: torch.tensor(1.0 * (key == query)) for key in weights}

    return [SelfOnly(blocks=1, heads=[2, 0])], Changes(row=row)


def _without(weights: Row, gone: Callable[[int], bool], renormalize: bool) -> Row:
    left = {key: 0 * weight if gone(key) else weight for key, weight in weights.items()}
    total = float(sum(left.values()))
    return {key: weight / total for key, weight in left.items()} if renormalize and total else left


def no_first(made: Made, renormalize: bool) -> tuple[list[Edit], Changes]:
    """``no_cls`` where there is one, else the same of the first image token."""

    def row(_: int, __: int, ___: int, query: int, weights: Row) -> Row:
        return _without(weights, lambda key: key == 0, renormalize) if query >= made.start else weights

    cut = NoCls(renormalize=renormalize) if made.start else CutAttention("image", [0], renormalize=renormalize)
    return [cut], Changes(row=row)


def cut_by_masks(made: Made) -> tuple[list[Edit], Changes]:
    """Queries and keys of each image apart; the second image's queries see nothing at all."""
    queries, keys = made.mask.flip(0), ~made.mask
    keys[1] = True

    def row(image: int, _: int, __: int, query: int, weights: Row) -> Row:
        return _without(weights, lambda key: bool(keys[image, key]), True) if queries[image, query] else weights

    return [CutAttention(queries, keys, renormalize=True)], Changes(row=row)


def keep(made: Made) -> tuple[list[Edit], Changes]:
    return [KeepTokens(made.mask)], Changes(kept=lambda image, token: bool(made.mask[image, token]))


def keep_and_keep(made: Made) -> tuple[list[Edit], Changes]:
    """What both keep, which for the second image is its last token alone."""
    one, two = made.mask, torch.arange(made.count) != made.start
    edits: list[Edit] = [KeepTokens(one), KeepTokens(two)]
    return edits, Changes(kept=lambda image, token: bool(one[image, token] & two[token]))


def keep_after_others(made: Made) -> tuple[list[Edit], Changes]:
    """Dropping comes before everything, so rows that are not renormalized stay so."""
    (cut,), changes = no_first(made, False)
    (heads,), ablated = heads_means(made)
    changes.kept, changes.places = keep(made)[1].kept, ablated.places
    return [cut, heads, KeepTokens(made.mask)], changes


def _put(which: Callable[[int, int], bool], part: list[int], to: Callable[[int, int], Tensor]) -> Place:
    """Put something in the place of a part of the vectors of some blocks and tokens."""

    def place(block: int, states: States) -> None:
        for tokens in states:
            for token in filter(lambda token: which(block, token), tokens):
                tokens[token] = tokens[token].clone()
                tokens[token][part] = to(block, token).to(tokens[token])

    return place


def _channels(*heads: int) -> list[int]:
    return [head * CHANNELS + each for head in heads for each in range(CHANNELS)]


def heads_zero(made: Made) -> tuple[list[Edit], Changes]:
    part = _channels(2, 0)
    put = _put(lambda block, token: block != 1 and token >= made.start, part, lambda *_: torch.zeros(len(part)))
    return [AblateHeads([2, 0], blocks=[0, 2], tokens="image")], Changes(places={"joined": put})


def _mean(made: Made, point: str, part: list[int]) -> Callable[[int, int], Tensor]:
    """The means of a part at a block and token."""
    return lambda block, token: made.means.values[f"{point}.{block}"][token][part]


def heads_means(made: Made) -> tuple[list[Edit], Changes]:
    part = _channels(2, 0)
    put = _put(lambda *_: True, part, _mean(made, "attn_coefficients", part))
    return [AblateHeads([2, 0], to=made.means)], Changes(places={"joined": put})


def heads_tensor(made: Made) -> tuple[list[Edit], Changes]:
    """The order of the heads is the order of the tensor's columns."""
    given = torch.randn(made.count, 2 * CHANNELS, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    put = _put(lambda block, _: block == 1, _channels(2, 0), lambda _, token: given[token])
    return [AblateHeads([2, 0], blocks=1, to=given)], Changes(places={"joined": put})


def neurons(made: Made) -> tuple[list[Edit], Changes]:
    def both(block: int, states: States) -> None:
        _put(lambda block, _: block < 2, [40, 3], _mean(made, "mlp_coefficients", [40, 3]))(block, states)
        _put(lambda block, token: block == 2 and token == 1, [7], lambda *_: torch.tensor([0.5]))(block, states)

    edits: list[Edit] = [
        AblateNeurons([40, 3], blocks=[0, 1], to=made.means),
        AblateNeurons([7], blocks=2, tokens=[1], to=torch.tensor(0.5)),
    ]
    return edits, Changes(places={"hidden": both})


def channels(made: Made) -> tuple[list[Edit], Changes]:
    put = _put(lambda *_: True, [9, 23], lambda *_: torch.zeros(2))
    return [AblateNeurons([9, 23], sublayer="attn")], Changes(places={"joined": put})


def sublayers(made: Made) -> tuple[list[Edit], Changes]:
    every = list(range(24))
    zero = _put(lambda block, token: block == 0 and token < 2, every, lambda *_: torch.zeros(24))
    mean = _put(lambda block, _: block == 2, every, _mean(made, "mlp_out", every))
    edits: list[Edit] = [
        AblateSublayer("attn", blocks=0, tokens=slice(2)),
        AblateSublayer("mlp", blocks=2, to=made.means),
    ]
    return edits, Changes(places={"attn_out": zero, "mlp_out": mean})


def _theirs(made: Made, place: str, at: int, part: list[int], tokens: Callable[[int], bool]) -> Place:
    other = made.other.seen[place, at][0]
    return _put(lambda block, token: block == at and tokens(token), part, lambda _, token: other[token][part])


def patch(made: Made, site: Any, place: str, block: int, given: Any) -> tuple[list[Edit], Changes]:
    put = _theirs(made, place, block, list(range(24)), lambda token: token >= made.start)
    return [Patch(site, made.source, blocks=given, tokens="image")], Changes(places={place: put})


def patch_heads(made: Made) -> tuple[list[Edit], Changes]:
    put = _theirs(made, "joined", 1, _channels(0, 2), lambda token: token in (0, 3))
    return [Patch("heads", made.source, blocks=1, heads=[0, 2], tokens=[0, 3])], Changes(places={"joined": put})


def patched_and_ablated(made: Made) -> tuple[list[Edit], Changes]:
    """A patched stream is the source's whatever its block's attention adds; what comes later is edited as well."""
    (first,), changes = patch(made, "resid_post", "resid_post", 0, 0)
    (cut,), cutting = self_only_somewhere(made)
    every = list(range(24))
    changes.row = cutting.row
    changes.places["attn_out"] = _put(lambda block, _: block == 0, every, lambda *_: torch.zeros(24))
    return [first, cut, AblateSublayer("attn", blocks=0)], changes


CASES: dict[str, Case] = {
    "nothing": lambda _: ([], Changes()),
    "self only": self_only,
    "self only, one block, two heads": self_only_somewhere,
    "no cls": lambda made: no_first(made, False),
    "no cls, renormalized": lambda made: no_first(made, True),
    "cut by masks": cut_by_masks,
    "keep": keep,
    "keep and keep": keep_and_keep,
    "keep after others": keep_after_others,
    "heads, zero": heads_zero,
    "heads, means": heads_means,
    "heads, tensor": heads_tensor,
    "neurons": neurons,
    "channels": channels,
    "sublayers": sublayers,
    "patch embed": lambda made: patch(made, "embed", "embed", 0, "all"),
    "patch resid_pre 0": lambda made: patch(made, "resid_pre", "embed", 0, 0),
    "patch resid_pre 2": lambda made: patch(made, "resid_pre", "resid_post", 1, 2),
    "patch attn_out": lambda made: patch(made, "attn_out", "attn_out", 1, 1),
    "patch mlp_out": lambda made: patch(made, "mlp_out", "mlp_out", 1, 1),
    "patch resid_post": lambda made: patch(made, "resid_post", "resid_post", 1, 1),
    "patch heads": patch_heads,
    "patched and ablated": patched_and_ablated,
}


# Dropping tokens is tried with every way to pool them, all else with two variants, so that each pair of a kind of edit
# and a variant comes up.
_POOLED = ("cls_registers", "avg", *zoo.KINDS[2:4])
PAIRS = [
    (case, name)
    for number, case in enumerate(CASES)
    for name in ((_POOLED if "keep" in case else ()) or (NAMES[number % 7], NAMES[(number + 3) % 7]))
]
NESTED = [(case, NAMES[2 * number + 1]) for number, case in enumerate(("neurons", "sublayers"))]
NESTED += [(case, name) for case in ("keep and keep", "keep after others") for name in _POOLED[:2]]


@cache
def built(name: str) -> tuple[Made, Any, Tensor]:
    model, x, source = zoo.build(name), zoo.pixels(name), zoo.pixels(name, 1, seed=9)
    start = len(zoo.VARIANTS[name].prefix)
    means = random_means(classlens.load(model).view)
    return Made(name, start + 4, start, source, slow(name, model, source), means), model, x


def compare(states: Tensor, expected: States) -> None:
    """Of the tokens that are there."""
    for image, tokens in enumerate(expected):
        for token, x in tokens.items():
            torch.testing.assert_close(states[image, token], x, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("case", "name"), PAIRS)
def test_every_edit_does_what_it_says(case: str, name: str) -> None:
    made, model, x = built(name)
    edits, changes = CASES[case](made)
    expected = slow(made.name, model, x, changes)
    lens = classlens.load(model)
    before = zoo.snapshot(model)
    with lens.edit(*edits):
        with torch.no_grad():
            found = model(x)
        recording = lens.trace(x).recording
    assert zoo.snapshot(model) == before
    torch.testing.assert_close(found, expected.logits, rtol=0, atol=1e-10)
    torch.testing.assert_close(recording.logits, expected.logits, rtol=0, atol=1e-10)
    for (place, block), states in expected.seen.items():
        if place in ("attn_out", "resid_post"):
            compare(recording.state(place, block, slice(None)), states)
    with torch.no_grad():
        unedited = model(x)
    assert (case == "nothing") == torch.equal(found, unedited)


@pytest.mark.parametrize(("case", "name"), NESTED)
def test_contexts_nest(case: str, name: str) -> None:
    made, model, x = built(name)
    edits, changes = CASES[case](made)
    lens = classlens.load(model)
    if len(edits) == 2:
        with lens.edit(edits[0]), lens.edit(edits[1]), torch.no_grad():
            found = model(x)
    else:
        with lens.edit(edits[0]), lens.edit(*edits[1:]), torch.no_grad():
            found = model(x)
    torch.testing.assert_close(found, slow(made.name, model, x, changes).logits, rtol=0, atol=1e-10)
    with lens.edit(edits[-1]):
        with pytest.raises(KeyError), lens.edit(edits[0]):
            raise KeyError
        with torch.no_grad():
            left = model(x)
    with lens.edit(edits[-1]), torch.no_grad():
        assert torch.equal(left, model(x)), "the outer edit is as it was"
