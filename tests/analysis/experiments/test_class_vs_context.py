"""Tokens of the class beside tokens of the context."""

from __future__ import annotations

from itertools import product
from math import comb
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from classlens.analysis.analyze import analyze
from classlens.core.stats import Statistics
from tests.analysis.literal import QUICK, logit_entering, positions, site_index, split_into_shards, table_and_contents
from tests.analysis.stores import StoreSpec, Values, write_store

NAME = "class_vs_context"
LABELS = {"class": 1, "context": 0}


def value(spec: StoreSpec, facts: Values, quantity: str, image: int, block: int, token: int) -> float:
    if quantity == "identifiability":
        return 1 - int(facts["rank"][image, site_index(spec, "resid_post"), block, token]) / spec.classes
    logit = facts["logit"][image, site_index(spec, quantity.replace("rise", "out")), block, token]
    return float(logit > logit_entering(spec, facts, "logit", image, block, token))


def literal(spec: StoreSpec, facts: Values, quantity: str, block: int) -> dict[str, list[list[float]]]:
    """Of each image, the values of its class tokens and of its context tokens."""
    return {
        labeled: [
            [
                value(spec, facts, quantity, image, block, token)
                for token in positions(spec, "image")
                if facts["class_token"][image, token] == wanted
            ]
            for image in range(spec.images)
        ]
        for labeled, wanted in LABELS.items()
    }


@pytest.mark.parametrize("embed", [True, False])
def test_values(tmp_path: Path, embed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some images have no token of the one kind: a mean of nothing is no value."""
    split_into_shards(monkeypatch)
    spec = StoreSpec(masks=True, images=70, embed=embed, seed=3)
    table, written = table_and_contents(tmp_path, spec, NAME)
    facts = written["clean"]
    lacking = 0
    for row in table.to_dict("records"):
        by_image = literal(spec, facts, row["quantity"], row["block"])
        means = {
            kind: np.array([sum(values) / len(values) if values else np.nan for values in tokens])
            for kind, tokens in by_image.items()
        }
        means["difference"] = means["class"] - means["context"]
        images = means[row["labeled"]]
        assert row["value"] == pytest.approx(np.nanmean(images), abs=1e-12)
        assert row["images"] == np.sum(~np.isnan(images))
        lacking += spec.images - row["images"]
        if row["labeled"] == "difference":
            pooled = {kind: [value for values in by_image[kind] for value in values] for kind in LABELS}
            difference = np.mean(pooled["class"]) - np.mean(pooled["context"])
            assert row["difference_tokens"] == pytest.approx(difference, abs=1e-12)
            assert 0 < row["p"] <= row["p_holm"] <= 1
            assert 0 < row["p_tokens"] <= row["p_tokens_holm"] <= 1
        else:
            assert np.isnan(row["p"])
    assert lacking > 0
    blocks = table.groupby("quantity")["block"].unique()
    assert list(blocks["identifiability"]) == [0, 1, 2]
    assert list(blocks["attn_rise"]) == [0, 1, 2][not embed :]


def test_p_values_are_exact_but_for_what_is_drawn(tmp_path: Path) -> None:
    spec = StoreSpec(masks=True, images=7, seed=8, blocks=2)
    statistics = Statistics(permutations=4000, resamples=5)
    table, written = table_and_contents(tmp_path, spec, NAME, statistics)
    for row in table[table["labeled"] == "difference"].to_dict("records"):
        by_image = literal(spec, written["clean"], row["quantity"], row["block"])
        pairs = [
            np.mean(class_values) - np.mean(context_values)
            for class_values, context_values in zip(by_image["class"], by_image["context"], strict=True)
            if class_values and context_values
        ]
        sums = [np.dot(signs, pairs) for signs in product((-1, 1), repeat=len(pairs))]
        exact = np.mean(np.array(sums) >= sum(pairs) - 1e-9)
        # Four standard deviations of a share of 4,000.
        assert row["p"] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4000) + 1 / 2000)
        if row["quantity"] != "identifiability":
            hits = {kind: [value for values in by_image[kind] for value in values] for kind in LABELS}
            counts = [[sum(hit == 1 for hit in hits[kind]), sum(hit == 0 for hit in hits[kind])] for kind in LABELS]
            fisher = stats.fisher_exact(counts, alternative="greater").pvalue
            slack = 4 * np.sqrt(fisher * (1 - fisher) / 4000) + 1 / 2000
            assert row["p_tokens"] == pytest.approx(fisher, abs=slack)


def test_an_effect_of_known_size(tmp_path: Path) -> None:
    """Class tokens are identifiable at rank 1 of 10, context tokens at rank 4: a difference of 0.3, in every image."""
    mask = np.tile([-1, 1, 0, 0, 1], (40, 1)).astype(np.int8)
    rank = np.empty((40, 4, 2, 5), dtype=np.int16)
    rank[:] = np.where(mask == 1, 1, 4)[:, None, None]
    spec = StoreSpec(images=40, blocks=2, classes=10, masks=True, facts={"clean": {"rank": rank, "class_token": mask}})
    table, _ = table_and_contents(tmp_path, spec, NAME, Statistics(permutations=999, resamples=20))
    rows = table.query("quantity == 'identifiability'").set_index(["labeled", "block"])
    for block in range(2):
        assert rows.loc[("class", block), "value"] == pytest.approx(0.9)
        assert rows.loc[("context", block), "value"] == pytest.approx(0.6)
        difference = rows.loc[("difference", block)]
        assert difference[["value", "low", "high", "difference_tokens"]].tolist() == pytest.approx([0.3] * 4)
        # 40 signs are all right once in 2**40, 80 of 160 labels still less often: no permutation comes near.
        assert difference[["p", "p_tokens"]].tolist() == [1 / 1000] * 2
        assert difference[["p_holm", "p_tokens_holm"]].tolist() == [2 / 1000] * 2


def test_by_hand(tmp_path: Path) -> None:
    """Both kinds in two images, the class alone, the context alone, and an image without a mask."""
    mask = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [-1, -1, -1, -1]], dtype=np.int8)
    rank = np.array([[0, 2, 3, 3], [4, 5, 5, 8], [9, 9, 9, 9], [0, 0, 0, 0], [9, 9, 9, 9]], dtype=np.int16)
    logit = np.zeros((5, 4, 1, 5), dtype=np.float32)
    logit[:, 0, 0, 1:] = mask == 0  # attention: of class tokens as large as in the input, which is no rise
    logit[:, 1] = 5
    logit[:, 2, 0, 1:] = mask == 1  # the MLP: beside the block's input, not beside the stream after the attention
    # `[CLS]` shows no class, but is told apart by its kind alone.
    facts: Values = {
        "class_token": np.pad(mask, ((0, 0), (1, 0)), constant_values=1),
        "rank": np.broadcast_to(np.pad(rank, ((0, 0), (1, 0)))[:, None, None], (5, 4, 1, 5)),
        "logit": logit,
        "embed_logit": np.zeros((5, 5), dtype=np.float32),
    }
    spec = StoreSpec(images=5, blocks=1, classes=10, masks=True, conditions=("clean",), facts={"clean": facts})
    statistics = Statistics(permutations=4000, resamples=20)
    table, _ = table_and_contents(tmp_path, spec, NAME, statistics)
    rows = table.set_index(["quantity", "labeled"])
    wanted = {
        "identifiability": ((0.9 + 0.6 + 0.1) / 3, (0.7 + 0.4 + 1) / 3, 0.2, (24 / 9 - 42 / 7) / 10),
        "attn_rise": (0, 1, -1, -1),
        "mlp_rise": (1, 0, 1, 1),
    }
    for quantity, numbers in wanted.items():
        measured = [rows.loc[(quantity, labeled), "value"] for labeled in ("class", "context", "difference")]
        tokens = rows.loc[(quantity, "difference"), "difference_tokens"]
        assert [*measured, tokens] == pytest.approx(numbers, abs=1e-12), quantity
        counted = [rows.loc[(quantity, labeled), "images"] for labeled in ("class", "context", "difference")]
        assert counted == [3, 3, 2]
    # Two differences of one sign: one of four choices of signs is as high. Four standard deviations of 4,000 draws.
    p = rows.xs("difference", level="labeled")["p"]
    assert p[["identifiability", "mlp_rise"]].tolist() == pytest.approx([1 / 4] * 2, abs=4 * np.sqrt(3 / 16 / 4000))
    assert p["attn_rise"] == 1, "tokens of the context that are higher speak against the effect"
    # Seven class tokens are highest of all sixteen, or lowest.
    p = rows.xs("difference", level="labeled")["p_tokens"]
    assert p["mlp_rise"] == pytest.approx(1 / comb(16, 7), abs=2 / 4001)
    assert p["attn_rise"] == 1


def test_corrections_go_over_the_blocks_of_a_quantity(tmp_path: Path) -> None:
    table, _ = table_and_contents(tmp_path, StoreSpec(masks=True, images=30, seed=4), NAME)
    for _, rows in table[table["labeled"] == "difference"].groupby("quantity"):
        for p in ("p", "p_tokens"):
            order = np.argsort(rows[p].to_numpy())
            steps = np.maximum.accumulate(rows[p].to_numpy()[order] * [3, 2, 1]).clip(max=1)
            assert rows[f"{p}_holm"].to_numpy()[order].tolist() == steps.tolist()


def test_p_values_are_uniform_where_classes_are_drawn_alike(tmp_path: Path) -> None:
    """A store of 200 blocks of ranks that know nothing of the mask: 200 independent tests of a null effect."""
    spec = StoreSpec(
        images=30,
        blocks=200,
        classes=100,
        masks=True,
        sites=("resid_post",),
        memories=False,
        conditions=("clean",),
    )
    table, _ = table_and_contents(tmp_path, spec, NAME, Statistics(permutations=499, resamples=2))
    rows = table[table["labeled"] == "difference"]
    assert len(rows) == 200
    for p in ("p", "p_tokens"):
        # Kolmogorov and Smirnov: a true null fails this once in a thousand seeds, and the seed is fixed.
        assert stats.kstest(rows[p], "uniform").pvalue > 0.001


def test_blocks_that_have_no_input_are_named(tmp_path: Path) -> None:
    write_store(tmp_path / "made.zarr", StoreSpec(masks=True, embed=False, conditions=("clean",)))
    result = analyze(tmp_path / "made.zarr", experiments=[NAME], statistics=QUICK)
    assert [(missing.whole, missing.reason.split(":")[0]) for missing in result.missing] == [
        (False, "site embed was not measured")
    ]


def test_without_sublayers_identifiability_is_left(tmp_path: Path) -> None:
    table, _ = table_and_contents(tmp_path, StoreSpec(masks=True, sites=("resid_post",), memories=False), NAME, QUICK)
    assert set(table["quantity"]) == {"identifiability"}
