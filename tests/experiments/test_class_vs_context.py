"""Tokens of the class beside tokens of the context."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from classlens.core.stats import Statistics
from tests.experiments.stores import Made, Values
from tests.experiments.twins import QUICK, logit_entering, made_table, place, places, split_into_shards

NAME = "class_vs_context"
LABELS = {"class": 1, "context": 0}


def value(made: Made, facts: Values, quantity: str, image: int, block: int, token: int) -> float:
    if quantity == "identifiability":
        return 1 - int(facts["rank"][image, place(made, "resid_post"), block, token]) / made.classes
    own = facts["logit"][image, place(made, quantity.replace("rise", "out")), block, token]
    return float(own > logit_entering(made, facts, "logit", image, block, token))


def literal(made: Made, facts: Values, quantity: str, block: int) -> dict[str, list[list[float]]]:
    """Of each image, the values of its class tokens and of its context tokens."""
    return {
        labelled: [
            [
                value(made, facts, quantity, image, block, token)
                for token in places(made, "image")
                if facts["class_token"][image, token] == wanted
            ]
            for image in range(made.images)
        ]
        for labelled, wanted in LABELS.items()
    }


@pytest.mark.parametrize("embed", [True, False])
def test_values(tmp_path: Path, embed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some images have no token of the one kind: a mean of nothing is no value."""
    split_into_shards(monkeypatch)
    made = Made(masks=True, images=70, embed=embed, seed=3)
    table, written = made_table(tmp_path, made, NAME)
    facts = written["clean"]
    lacking = 0
    for row in table.to_dict("records"):
        found = literal(made, facts, row["quantity"], row["block"])
        means = {
            kind: np.array([sum(one) / len(one) if one else np.nan for one in each]) for kind, each in found.items()
        }
        means["difference"] = means["class"] - means["context"]
        own = means[row["labelled"]]
        assert row["value"] == pytest.approx(np.nanmean(own), abs=1e-12)
        assert row["images"] == np.sum(~np.isnan(own))
        lacking += made.images - row["images"]
        if row["labelled"] == "difference":
            pooled = {kind: [one for each in found[kind] for one in each] for kind in LABELS}
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
    made = Made(masks=True, images=7, seed=8, blocks=2)
    how = Statistics(permutations=4000, resamples=5)
    table, written = made_table(tmp_path, made, NAME, how)
    for row in table[table["labelled"] == "difference"].to_dict("records"):
        found = literal(made, written["clean"], row["quantity"], row["block"])
        pairs = [
            np.mean(one) - np.mean(other)
            for one, other in zip(found["class"], found["context"], strict=True)
            if one and other
        ]
        sums = [np.dot(signs, pairs) for signs in product((-1, 1), repeat=len(pairs))]
        exact = np.mean(np.array(sums) >= sum(pairs) - 1e-9)
        # Four standard deviations of a share of 4,000.
        assert row["p"] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4000) + 1 / 2000)
        if row["quantity"] != "identifiability":
            hits = {kind: [one for each in found[kind] for one in each] for kind in LABELS}
            counts = [[sum(one == 1 for one in hits[kind]), sum(one == 0 for one in hits[kind])] for kind in LABELS]
            fisher = stats.fisher_exact(counts, alternative="greater").pvalue
            slack = 4 * np.sqrt(fisher * (1 - fisher) / 4000) + 1 / 2000
            assert row["p_tokens"] == pytest.approx(fisher, abs=slack)


def test_an_effect_of_known_size(tmp_path: Path) -> None:
    """Class tokens are identifiable at rank 1 of 10, context tokens at rank 4: a difference of 0.3, in every image."""
    mask = np.tile([-1, 1, 0, 0, 1], (40, 1)).astype(np.int8)
    rank = np.empty((40, 4, 2, 5), dtype=np.int16)
    rank[:] = np.where(mask == 1, 1, 4)[:, None, None]
    made = Made(images=40, blocks=2, classes=10, masks=True, facts={"clean": {"rank": rank, "class_token": mask}})
    table, _ = made_table(tmp_path, made, NAME, Statistics(permutations=999, resamples=20))
    rows = table.query("quantity == 'identifiability'").set_index(["labelled", "block"])
    for block in range(2):
        assert rows.loc[("class", block), "value"] == pytest.approx(0.9)
        assert rows.loc[("context", block), "value"] == pytest.approx(0.6)
        difference = rows.loc[("difference", block)]
        assert difference[["value", "low", "high", "difference_tokens"]].tolist() == pytest.approx([0.3] * 4)
        # 40 signs are all right once in 2**40, 80 of 160 labels still less often: no permutation comes near.
        assert difference[["p", "p_tokens"]].tolist() == [1 / 1000] * 2
        assert difference[["p_holm", "p_tokens_holm"]].tolist() == [2 / 1000] * 2


def test_without_sublayers_identifiability_is_left(tmp_path: Path) -> None:
    table, _ = made_table(tmp_path, Made(masks=True, sites=("resid_post",), memories=False), NAME, QUICK)
    assert set(table["quantity"]) == {"identifiability"}
