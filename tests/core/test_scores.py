"""Ranks against a full sort, facts of sites against projecting each on its own, shares against plain counting."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from classlens.core import scores
from classlens.core.scores import BlockFacts, Facts, Share, facts, identifiability
from classlens.core.space import ClassSpace
from classlens.core.steps import Norm, Step, UnitLength
from classlens.errors import ClasslensError

SITES = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
SUBSETS = [subset for size in range(1, 6) for subset in combinations(SITES, size)]


def _by_sorting(logits: Tensor, target: Tensor) -> list[int]:
    """The place of the class of interest in the sorted row, the best of its place among equals."""
    ranks = []
    for row, index in zip(logits.tolist(), target.tolist(), strict=True):
        ranks.append(sorted(row, reverse=True).index(row[index]))
    return ranks


@st.composite
def logits_and_targets(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Rows of finite logits; few distinct values in half of the cases, so that many tie."""
    rows, classes = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    values = draw(
        st.sampled_from(
            [
                st.integers(-1, 1).map(float),
                st.floats(-(2.0**99), 2.0**99, width=32),
                st.floats(-50, 50, width=32),
            ]
        )
    )
    logits = draw(st.lists(st.lists(values, min_size=classes, max_size=classes), min_size=rows, max_size=rows))
    target = draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    return torch.tensor(logits, dtype=draw(st.sampled_from([torch.float32, torch.float64]))), torch.tensor(target)


@given(logits_and_targets())
def test_facts_agree_with_a_full_sort(drawn: tuple[Tensor, Tensor]) -> None:
    logits, target = drawn
    found = facts(logits.clone(), target)
    assert found.rank.tolist() == _by_sorting(logits, target)
    assert found.logit.tolist() == [row[index] for row, index in zip(logits.tolist(), target.tolist(), strict=True)]
    # numpy promises the first of several largest values.
    assert found.top1.tolist() == np.argmax(logits.numpy(), axis=1).tolist()


@given(logits_and_targets())
def test_ranks_and_identifiability_stay_within_their_bounds(drawn: tuple[Tensor, Tensor]) -> None:
    logits, target = drawn
    classes = logits.shape[1]
    found = facts(logits.clone(), target)
    assert ((found.rank >= 0) & (found.rank < classes)).all()
    share = identifiability(found.rank, classes)
    assert ((share > 0) & (share <= 1)).all()
    assert ((share == 1) == (found.rank == 0)).all()
    assert ((found.rank == 0) == (logits.amax(dim=1) == found.logit)).all()
    expected = [1 - rank / classes for rank in found.rank.tolist()]
    torch.testing.assert_close(share, torch.tensor(expected, dtype=share.dtype))


@given(logits_and_targets(), st.randoms(use_true_random=False))
def test_the_order_of_classes_does_not_matter(drawn: tuple[Tensor, Tensor], random: object) -> None:
    logits, target = drawn
    order = torch.tensor(sorted(range(logits.shape[1]), key=lambda _: random.random()))  # type: ignore[attr-defined]
    moved = torch.argsort(order)[target]
    before, after = facts(logits.clone(), target), facts(logits[:, order].clone(), moved)
    assert torch.equal(before.rank, after.rank)
    assert torch.equal(before.logit, after.logit)
    top = logits.gather(1, before.top1[:, None])
    assert torch.equal(top, logits[:, order].gather(1, after.top1[:, None]))


@given(logits_and_targets())
def test_a_rising_map_of_the_logits_keeps_ranks(drawn: tuple[Tensor, Tensor]) -> None:
    logits, target = drawn
    # Doubling is exact in binary, so it neither makes nor breaks a tie.
    assert torch.equal(facts(logits.clone(), target).rank, facts(2 * logits, target).rank)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_class_of_interest_that_is_not_finite_raises(value: float, dtype: torch.dtype) -> None:
    logits = torch.zeros(3, 4, dtype=dtype)
    logits[1, 2] = value
    with pytest.raises(ClasslensError, match="not finite"):
        facts(logits, torch.tensor([0, 2, 0]))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_another_class_that_would_spoil_the_rank_raises(value: float) -> None:
    logits = torch.zeros(3, 4)
    logits[1, 2] = value
    with pytest.raises(ClasslensError, match="not finite"):
        facts(logits, torch.tensor([0, 0, 0]))


def _space(kind: str, width: int, classes: int, generator: torch.Generator) -> ClassSpace:
    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    layer = Norm("layer", random(width), random(width), 1e-6)
    rms = Norm("rms", random(width), random(width), 1e-6)
    steps: dict[str, tuple[Step, ...]] = {
        "layer": (layer,),
        "rms": (rms,),
        "two": (layer, rms),
        "unit": (UnitLength(),),
    }
    return ClassSpace(steps.get(kind, ()), (), random(classes, width), random(classes))


def _one_by_one(
    space: ClassSpace, embed: Tensor, parts: list[tuple[Tensor, Tensor]], target: Tensor
) -> dict[tuple[str, int], tuple[list[int], Tensor, list[int]]]:
    """Every site written out, projected on its own, and sorted."""
    expected = {}
    x = embed
    for block, (attn, mlp) in enumerate(parts):
        middle, after = x + attn, x + attn + mlp
        for site, state in zip(SITES, (x, attn, middle, mlp, after), strict=True):
            logits = space.project(state)
            own = logits[torch.arange(len(target)), target]
            expected[site, block] = (_by_sorting(logits, target), own, logits.argmax(dim=1).tolist())
        x = after
    return expected


@pytest.mark.parametrize("scratch", [1, 23, 2**20])
@pytest.mark.parametrize("kind", ["layer", "rms", "two", "unit", "none"])
def test_facts_of_every_combination_of_sites(kind: str, scratch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row at a time, a few, and all at once; sums of products agree with products of sums."""
    monkeypatch.setattr(scores, "logits_at_once", lambda _: scratch)
    generator = torch.Generator().manual_seed(0)
    rows, width, classes, blocks = 5, 6, 7, 3
    space = _space(kind, width, classes, generator)
    embed = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    parts = [
        (
            torch.randn(rows, width, generator=generator, dtype=torch.float64),
            torch.randn(rows, width, generator=generator, dtype=torch.float64),
        )
        for _ in range(blocks)
    ]
    target = torch.randint(classes, (rows,), generator=generator)
    expected = _one_by_one(space, embed, parts, target)
    for sites in SUBSETS:
        made = BlockFacts(space, target, sites)
        found: dict[tuple[str, int], Facts] = {}
        order = list(made.feed("embed", embed))
        assert order == []
        for attn, mlp in parts:
            for name, part in (("attn_out", attn), ("mlp_out", mlp)):
                for site, block, one in made.feed(name, part):  # type: ignore[arg-type]
                    assert (site, block) not in found
                    found[site, block] = one
        assert set(found) == {(site, block) for site in sites for block in range(blocks)}
        for key, one in found.items():
            rank, logit, top1 = expected[key]
            assert one.rank.tolist() == rank
            assert one.top1.tolist() == top1
            torch.testing.assert_close(one.logit, logit, rtol=0, atol=1e-12)


def test_facts_of_the_embedding() -> None:
    generator = torch.Generator().manual_seed(0)
    space = _space("layer", 6, 7, generator)
    embed = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    target = torch.tensor([0, 1, 2, 3, 4])
    ((site, block, found),) = BlockFacts(space, target, ("embed",)).feed("embed", embed)
    assert (site, block) == ("embed", 0)
    assert found.rank.tolist() == _by_sorting(space.project(embed), target)


def test_what_is_fed_is_left_as_it_was() -> None:
    generator = torch.Generator().manual_seed(0)
    space = _space("layer", 6, 7, generator)
    fed = [torch.randn(5, 6, generator=generator, dtype=torch.float64) for _ in range(3)]
    before = [x.clone() for x in fed]
    made = BlockFacts(space, torch.zeros(5, dtype=torch.int64), SITES)
    for name, x in zip(("embed", "attn_out", "mlp_out"), fed, strict=True):
        list(made.feed(name, x))  # type: ignore[arg-type]
    assert all(torch.equal(x, old) for x, old in zip(fed, before, strict=True))


@given(st.lists(st.booleans(), max_size=40), st.data())
def test_a_share_is_the_same_for_any_split_and_order(hits: list[bool], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(hits))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(hits)), max_size=5)))
    pieces = [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(hits)], strict=True)]
    parts = [Share.update(torch.tensor(piece, dtype=torch.bool)) for piece in data.draw(st.permutations(pieces))]
    whole = Share(0, 0)
    for part in parts:
        whole = whole.merge(part)
    backwards = Share(0, 0)
    for part in reversed(parts):
        backwards = part.merge(backwards)
    assert whole == backwards == Share.update(torch.tensor(hits, dtype=torch.bool))
    if hits:
        assert whole.compute() == sum(hits) / len(hits)
        assert 0 <= whole.compute() <= 1
    else:
        assert math.isnan(whole.compute())


def test_a_share_counts_entries_of_any_shape() -> None:
    hit = torch.tensor([[True, False, True], [False, False, True]])
    assert Share.update(hit).compute() == 0.5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [(0, 2), (1, 0)])
def test_a_logit_that_is_not_finite_raises_whichever_class_it_is_of(value: float, place: tuple[int, int]) -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [6.0, 5.0, 4.0]])
    logits[place] = value
    with pytest.raises(ClasslensError, match="not finite"):
        facts(logits, torch.tensor([1, 1]))
