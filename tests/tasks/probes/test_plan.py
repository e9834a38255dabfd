"""How probes are shared out to passes, and what is left of a run that was stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import classlens
from classlens.models.view import Tokens
from classlens.store.probe_folder import ProbeTokens
from classlens.tasks.probes.plan import Plan, all_probe_tokens, choose_sites, make_plan, remaining_tokens, token_range
from tests import zoo
from tests.refusals import refused

SITES = ("attn_out", "resid_post")


def tokens_in(places: Iterable[ProbeTokens]) -> Counter[tuple[str, int, int]]:
    """How often each token of each site and block is there."""
    return Counter((one.site, one.block, token) for one in places for token in range(one.start, one.stop))


def planned(places: list[ProbeTokens], memory: int, *, each: int = 100, least: int = 2, pooled: bool = False) -> Plan:
    return make_plan(places, memory, probe_bytes=each, feature_bytes=3, least_images=least, pooled=pooled, images=1000)


wanted_places = st.lists(
    st.tuples(st.sampled_from(SITES), st.integers(0, 3), st.integers(0, 3), st.integers(1, 9)),
    min_size=1,
    max_size=6,
    unique_by=lambda one: one[:2],
).map(lambda found: [ProbeTokens(site, block, start, start + count) for site, block, start, count in found])


@given(wanted_places, st.integers(106, 5000), st.booleans())
def test_every_token_gets_its_probe_in_one_pass(places: list[ProbeTokens], memory: int, pooled: bool) -> None:
    found = planned(places, memory, pooled=pooled)
    every = tokens_in(one for some in found.passes for one in some)
    assert every == tokens_in(places)
    assert set(every.values()) == {1}
    for some in found.passes:
        probes = len(some) if pooled else sum(one.stop - one.start for one in some)
        assert probes
        # Sums, and features of a buffer of images.
        assert probes * (100 + 3 * found.buffer) <= memory
    assert 2 <= found.buffer <= 256
    if pooled:
        assert Counter(one for some in found.passes for one in some) == Counter(places), "a pooled probe is not split"


@given(wanted_places, st.integers(106, 5000))
def test_passes_are_as_few_as_the_memory_allows(places: list[ProbeTokens], memory: int) -> None:
    """So many probes at once as fit with the features of two images; ``⌈need / memory⌉`` where there is room."""
    units = sum(one.stop - one.start for one in places)
    found = len(planned(places, memory).passes)
    assert found == -(-units // (memory // (100 + 2 * 3)))
    # Without features to speak of.
    slim = make_plan(places, memory * 1000, probe_bytes=100_000, feature_bytes=1, least_images=1, pooled=False, images=1000)
    if memory % 100:
        assert len(slim.passes) == -(-units // (memory // 100))
        assert len(slim.passes) >= -(-units * 100 // memory)


def test_by_hand() -> None:
    """Five probes of 100 in 250: two fit, with room for features of (250 - 200) / (2 · 3) = 8 images."""
    found = planned([ProbeTokens("attn_out", 0, 0, 3), ProbeTokens("resid_post", 0, 0, 2)], 250)
    assert found.passes == (
        (ProbeTokens("attn_out", 0, 0, 2),),
        (ProbeTokens("attn_out", 0, 2, 3), ProbeTokens("resid_post", 0, 0, 1)),
        (ProbeTokens("resid_post", 0, 1, 2),),
    )
    assert found.buffer == 8
    # Exactly two fit, and no features: one pass more.
    assert len(planned([ProbeTokens("attn_out", 0, 0, 2)], 200).passes) == 2


def test_a_probe_that_does_not_fit() -> None:
    places = [ProbeTokens("attn_out", 0, 0, 2)]
    refused(lambda: planned(places, 105), "memory of 0.0 MB is too little", "features of 2 images")
    assert planned(places, 106).buffer == 2
    # No more images are waited for than there are.
    few = make_plan(places, 103, probe_bytes=100, feature_bytes=3, least_images=16, pooled=False, images=1)
    assert few.buffer == 1
    refused(lambda: make_plan(places, 102, probe_bytes=100, feature_bytes=3, least_images=16, pooled=False, images=1), "features of 1 images")


@given(wanted_places, st.data())
def test_what_is_left(places: list[ProbeTokens], data: st.DataObject) -> None:
    done = []
    for place in places:
        cuts = sorted(data.draw(st.sets(st.integers(place.start, place.stop), max_size=4)))
        parts = [place._replace(start=one, stop=other) for one, other in pairwise(cuts)]
        done += [part for part in parts if data.draw(st.booleans())]
    left = remaining_tokens(places, done)
    assert tokens_in(left) + tokens_in(done) == tokens_in(places)
    assert all(one.stop > one.start for one in left)


def test_nothing_is_left_of_what_is_done_and_more() -> None:
    place = ProbeTokens("attn_out", 1, 0, 5)
    assert remaining_tokens([place], [place._replace(stop=9)]) == []
    assert remaining_tokens([place], [place._replace(block=2), place._replace(site="mlp_out")]) == [place]
    assert remaining_tokens([place], [place, place._replace(start=1, stop=2)]) == []
    assert remaining_tokens([place], [place._replace(start=1, stop=2)]) == [
        place._replace(stop=1),
        place._replace(start=2),
    ]


def test_places_of_a_model() -> None:
    view = classlens.load(zoo.build("cls_registers")).view
    found = all_probe_tokens(view, ("embed", "resid_post"), range(1, 4))
    assert found == [
        ProbeTokens("embed", 0, 1, 4),
        *(ProbeTokens("resid_post", block, 1, 4) for block in range(3)),
    ]


@pytest.mark.parametrize(
    ("model", "which", "expected"),
    [
        ("cls_registers", "all", range(7)),
        ("cls_registers", "prefix", range(3)),
        ("cls_registers", "image", range(3, 7)),
        ("cls_registers", "cls", range(1)),
        ("avg", "all", range(4)),
        ("avg", "image", range(4)),
    ],
)
def test_tokens(model: str, which: str, expected: range) -> None:
    view = classlens.load(zoo.build(model)).view
    assert token_range(which, view, Tokens(view.prefix, (2, 2))) == expected


def test_tokens_that_are_not_there() -> None:
    view = classlens.load(zoo.build("avg_registers")).view
    tokens = Tokens(view.prefix, (2, 2))
    refused(lambda: token_range("cls", view, tokens), "'cls'", "give one of all, prefix, image")
    view = classlens.load(zoo.build("avg")).view
    refused(lambda: token_range("prefix", view, Tokens((), (2, 2))), "'prefix'", "give one of all, image")


def test_sites() -> None:
    view = classlens.load(zoo.build("cls")).view
    assert choose_sites("mlp_out", view) == ("mlp_out",)
    assert choose_sites(["resid_post", "embed", "resid_post"], view) == ("embed", "resid_post")
    refused(lambda: choose_sites("resid_pots", view), "'resid_pots'", "did you mean 'resid_post'")
    refused(lambda: choose_sites("resid_pre", view), "'resid_pre' cannot be probed")
    refused(lambda: choose_sites([], view), "no sites")
