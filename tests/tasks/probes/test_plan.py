"""How probes are split into passes, and which tokens of a stopped run remain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain, pairwise

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


def positions(tokens: Iterable[ProbeTokens]) -> Counter[tuple[str, int, int]]:
    """How often each token of each site and block occurs."""
    return Counter((part.site, part.block, token) for part in tokens for token in range(part.start, part.stop))


def plan_of(tokens: list[ProbeTokens], ram: int, *, pooled: bool = False, images: int = 1000, least: int = 2) -> Plan:
    return make_plan(tokens, ram, probe_bytes=100, feature_bytes=3, least_images=least, pooled=pooled, images=images)


token_lists = st.lists(
    st.tuples(st.sampled_from(SITES), st.integers(0, 3), st.integers(0, 3), st.integers(1, 9)),
    min_size=1,
    max_size=6,
    unique_by=lambda draw: draw[:2],
).map(lambda draws: [ProbeTokens(site, block, start, start + count) for site, block, start, count in draws])


@given(token_lists, st.integers(106, 5000), st.booleans())
def test_every_token_is_in_exactly_one_pass(tokens: list[ProbeTokens], ram: int, pooled: bool) -> None:
    plan = plan_of(tokens, ram, pooled=pooled)
    planned = positions(chain.from_iterable(plan.passes))
    assert planned == positions(tokens)
    assert set(planned.values()) == {1}
    for group in plan.passes:
        probes = len(group) if pooled else sum(part.stop - part.start for part in group)
        assert probes
        # Sums, and features of a buffer of images.
        assert probes * (100 + 3 * plan.buffer) <= ram
    assert 2 <= plan.buffer <= 256
    if pooled:
        assert Counter(chain.from_iterable(plan.passes)) == Counter(tokens), "a pooled probe is not split"


@given(token_lists, st.integers(106, 5000))
def test_passes_are_as_few_as_the_ram_allows(tokens: list[ProbeTokens], ram: int) -> None:
    """As many probes as fit with the features of two images; ``⌈need / ram⌉`` passes for small features."""
    probes = sum(part.stop - part.start for part in tokens)
    assert len(plan_of(tokens, ram).passes) == -(-probes // (ram // (100 + 2 * 3)))
    small_features = make_plan(
        tokens, ram * 1000, probe_bytes=100_000, feature_bytes=1, least_images=1, pooled=False, images=1000
    )
    if ram % 100:
        assert len(small_features.passes) == -(-probes // (ram // 100))
        assert len(small_features.passes) >= -(-probes * 100 // ram)


def test_by_hand() -> None:
    """Five probes of 100 in 250: two fit, with room for features of (250 - 200) / (2 · 3) = 8 images."""
    plan = plan_of([ProbeTokens("attn_out", 0, 0, 3), ProbeTokens("resid_post", 0, 0, 2)], 250)
    assert plan.passes == (
        (ProbeTokens("attn_out", 0, 0, 2),),
        (ProbeTokens("attn_out", 0, 2, 3), ProbeTokens("resid_post", 0, 0, 1)),
        (ProbeTokens("resid_post", 0, 1, 2),),
    )
    assert plan.buffer == 8
    # Two fit without features: one pass more.
    assert len(plan_of([ProbeTokens("attn_out", 0, 0, 2)], 200).passes) == 2


def test_a_probe_that_does_not_fit() -> None:
    tokens = [ProbeTokens("attn_out", 0, 0, 2)]
    refused(lambda: plan_of(tokens, 105), "ram of 0.0 MB is too little", "features of 2 images")
    assert plan_of(tokens, 106).buffer == 2
    # The buffer need not exceed the number of images.
    assert plan_of(tokens, 103, images=1, least=16).buffer == 1
    refused(lambda: plan_of(tokens, 102, images=1, least=16), "features of 1 images")


@given(token_lists, st.data())
def test_remaining_tokens(tokens: list[ProbeTokens], data: st.DataObject) -> None:
    trained = []
    for part in tokens:
        cuts = sorted(data.draw(st.sets(st.integers(part.start, part.stop), max_size=4)))
        pieces = [part._replace(start=start, stop=stop) for start, stop in pairwise(cuts)]
        trained += [piece for piece in pieces if data.draw(st.booleans())]
    remaining = remaining_tokens(tokens, trained)
    assert positions(remaining) + positions(trained) == positions(tokens)
    assert all(part.stop > part.start for part in remaining)


def test_remaining_tokens_by_hand() -> None:
    tokens = ProbeTokens("attn_out", 1, 0, 5)
    assert remaining_tokens([tokens], [tokens._replace(stop=9)]) == []
    assert remaining_tokens([tokens], [tokens._replace(block=2), tokens._replace(site="mlp_out")]) == [tokens]
    assert remaining_tokens([tokens], [tokens, tokens._replace(start=1, stop=2)]) == []
    assert remaining_tokens([tokens], [tokens._replace(start=1, stop=2)]) == [
        tokens._replace(stop=1),
        tokens._replace(start=2),
    ]


def test_tokens_of_every_site_and_block() -> None:
    view = classlens.load(zoo.build("cls_registers")).view
    assert all_probe_tokens(view, ("embed", "resid_post"), range(1, 4)) == [
        ProbeTokens("embed", 0, 1, 4),
        *(ProbeTokens("resid_post", block, 1, 4) for block in range(3)),
    ]


@pytest.mark.parametrize(
    ("model", "choice", "expected"),
    [
        ("cls_registers", "all", range(7)),
        ("cls_registers", "prefix", range(3)),
        ("cls_registers", "image", range(3, 7)),
        ("cls_registers", "cls", range(1)),
        ("avg", "all", range(4)),
        ("avg", "image", range(4)),
    ],
)
def test_token_choices(model: str, choice: str, expected: range) -> None:
    view = classlens.load(zoo.build(model)).view
    assert token_range(choice, view, Tokens(view.prefix, (2, 2))) == expected


def test_tokens_that_a_model_does_not_have() -> None:
    view = classlens.load(zoo.build("avg_registers")).view
    tokens = Tokens(view.prefix, (2, 2))
    refused(lambda: token_range("cls", view, tokens), "'cls'", "give one of all, prefix, image")
    view = classlens.load(zoo.build("avg")).view
    refused(lambda: token_range("prefix", view, Tokens((), (2, 2))), "'prefix'", "give one of all, image")


def test_sites() -> None:
    view = classlens.load(zoo.build("cls")).view
    assert choose_sites("mlp_out", view) == ("mlp_out",)
    assert choose_sites(["resid_post", "embed", "resid_post"], view) == ("embed", "resid_post")
    assert choose_sites("all", view) == ("embed", "attn_out", "resid_mid", "mlp_out", "resid_post")
    refused(lambda: choose_sites("resid_pots", view), "'resid_pots'", "did you mean 'resid_post'")
    refused(lambda: choose_sites("resid_pre", view), "'resid_pre' cannot be probed")
    refused(lambda: choose_sites([], view), "no sites")
