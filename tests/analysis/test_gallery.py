"""The table of a gallery beside one that loops over the arrays of a store, and doubt that no image has a part in."""

from __future__ import annotations

import statistics as plain
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from classlens.analysis.cross_fitting import cross_fitted
from classlens.analysis.doubt import Decisions, trajectory_features
from classlens.analysis.gallery import GalleryTable, gallery_table
from classlens.analysis.gallery_columns import COLUMNS
from classlens.analysis.measured_store import MeasuredStore
from tests.analysis.atlas.stores import AtlasSpec, write_atlas_store
from tests.analysis.literal import split_into_shards
from tests.analysis.stores import StoreSpec, Values, write_store

CONFIDENCE = np.linspace(0.2, 1, 40, dtype=np.float32)
SPEC = StoreSpec(
    images=40,
    blocks=4,
    grid=(3, 3),
    masks=True,
    conditions=("clean",),
    facts={"clean": {"confidence": CONFIDENCE}},
)


def table_of(path: Path, spec: StoreSpec) -> tuple[GalleryTable, Values]:
    facts = write_store(path / "a.zarr", spec)["clean"]
    return gallery_table(MeasuredStore(path / "a.zarr")), facts


def literal_row(spec: StoreSpec, facts: Values, image: int) -> dict[str, float]:
    """One row, in the words of the definitions."""
    top, final = facts["trajectory_top"][image], facts["trajectory_final_logit"][image].astype(float)
    first = [int(classes[0]) for classes in top[1:]]  # the embeddings are no block
    committed = len(first) - 1
    while committed > 0 and first[committed - 1] == first[-1]:
        committed -= 1
    ahead = [row[0] - row[1] for row in final[1:]]
    tokens = range(len(spec.prefix), len(spec.prefix) + spec.grid[0] * spec.grid[1])
    on_top = {token: facts["rank"][image, spec.sites.index("resid_post"), -1, token] == 0 for token in tokens}
    of_class = [on_top[token] for token in tokens if facts["class_token"][image, token] == 1]
    of_context = [on_top[token] for token in tokens if facts["class_token"][image, token] == 0]
    ratios, outliers = [], []
    for block in range(spec.blocks):
        norms = [float(facts["norm"][image, block, token]) for token in tokens]
        middle = plain.median(norms)
        spread = plain.median([abs(norm - middle) for norm in norms])
        ratios.append(max(norms) / middle)
        outliers.append(sum(norm > middle + 5 * spread for norm in norms))
    return {
        "label": facts["label"][image],
        "prediction": facts["prediction"][image],
        "correct": float(facts["label"][image] == facts["prediction"][image]),
        "confidence": CONFIDENCE[image],
        "margin": float(facts["trajectory_top_logit"][image, -1, 0])
        - float(facts["trajectory_top_logit"][image, -1, 1]),
        "entropy": facts["trajectory_entropy"][image, -1],
        "commitment": committed,
        "changes": sum(one != other for one, other in pairwise(first)),
        "change_of_mind": min(0.0, ahead[-1]) - min(ahead),
        "on_top": sum(on_top.values()) / len(on_top),
        "context_lead": sum(of_context) / len(of_context) - sum(of_class) / len(of_class)
        if of_class and of_context
        else float("nan"),
        "largest_norm": max(ratios),
        "outlier_tokens": max(outliers),
    }


def test_columns_are_those_of_loops(tmp_path: Path) -> None:
    measured = [1] * SPEC.images
    measured[3], measured[17] = 0, 2
    table, facts = table_of(tmp_path, StoreSpec(**{**vars(SPEC), "measured": {"clean": measured}}))
    assert table.images["index"].tolist() == [image for image in range(SPEC.images) if image not in (3, 17)]
    for _, row in table.images.iterrows():
        image = int(row["index"])
        assert row["image"] == f"{image:04}.png"
        for name, wanted in literal_row(SPEC, facts, image).items():
            # Stored in float32, summed in another order.
            assert row[name] == pytest.approx(wanted, rel=1e-6, abs=1e-6, nan_ok=True), (image, name)
    assert set(table.missing) == {"attention_lead"}


def test_any_split_into_batches_gives_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = StoreSpec(**{**vars(SPEC), "images": 150, "facts": {}})
    whole, _ = table_of(tmp_path, spec)
    split_into_shards(monkeypatch)
    seen: list[tuple[int, int]] = []
    parts = gallery_table(MeasuredStore(tmp_path / "a.zarr"), report=lambda done, total: seen.append((done, total)))
    pd.testing.assert_frame_equal(whole.images, parts.images)
    assert len(seen) > 1
    assert seen[-1] == (150, 150)


def test_confusions_go_by_frequency(tmp_path: Path) -> None:
    table, _ = table_of(tmp_path, StoreSpec(images=60, classes=10, conditions=("clean",)))
    wrong = table.images[table.images["label"] != table.images["prediction"]]
    counts = Counter(zip(wrong["label"], wrong["prediction"], strict=True))
    assert len(set(counts.values())) < len(counts), "no pairs tie"
    order = sorted(counts, key=lambda pair: (-counts[pair], pair))
    pairs = zip(wrong["label"], wrong["prediction"], strict=True)
    assert wrong["confusion"].tolist() == [order.index(pair) for pair in pairs]
    assert table.images.loc[table.images["correct"] == 1, "confusion"].isna().all()


@pytest.mark.parametrize(
    ("lacking", "columns", "words"),
    [
        ({"masks": False}, {"context_lead"}, "--masks"),
        ({"trajectory": False}, {"margin", "entropy", "doubt", "commitment", "changes", "change_of_mind"}, "anew"),
        ({"norms": False}, {"largest_norm", "outlier_tokens"}, "anew"),
        ({"labels": False}, {"doubt"}, "labels"),
        ({"sites": ("attn_out",)}, {"on_top", "context_lead"}, "--sites"),
    ],
)
def test_what_a_store_lacks_has_a_reason(
    tmp_path: Path, lacking: dict[str, object], columns: set[str], words: str
) -> None:
    spec = StoreSpec(**{**vars(SPEC), **lacking})
    table, _ = table_of(tmp_path, spec)
    assert columns <= set(table.missing)
    assert not columns & set(table.images)
    assert all(words in table.missing[name] for name in columns)
    assert set(table.missing) | (set(table.images) & set(COLUMNS)) == set(COLUMNS)


def test_without_a_wrong_prediction_there_is_no_doubt(tmp_path: Path) -> None:
    right = np.arange(SPEC.images) % SPEC.classes
    facts = {"clean": {"prediction": right.astype(np.int16), "label": right.astype(np.int16)}}
    facts["clean"]["correct"] = np.ones(SPEC.images, dtype=np.int8)
    table, _ = table_of(tmp_path, StoreSpec(**{**vars(SPEC), "facts": facts}))
    assert "no wrong" in table.missing["doubt"]
    assert "doubt" not in table.images


def test_attention_lead_is_heads_minus_mlps(tmp_path: Path) -> None:
    attributed = [1] * 12
    attributed[5] = 0
    spec = AtlasSpec(clean=StoreSpec(conditions=("clean",)), measured={"attribution": attributed})
    facts = write_atlas_store(tmp_path / "a.zarr", spec)["attribution"]
    values = gallery_table(MeasuredStore(tmp_path / "a.zarr")).images["attention_lead"].tolist()
    for image, value in enumerate(values):
        lead = []
        for of in (1, 2):  # the prediction, the mean class
            heads = [float(part) for block in facts["head_contribution"][image, of] for part in block]
            mlps = [float(part) for part in facts["mlp_contribution"][image, of]]
            lead.append(sum(part for part in heads if part == part) - sum(mlps))
        wanted = lead[0] - lead[1] if attributed[image] else float("nan")
        assert value == pytest.approx(wanted, rel=1e-6, abs=1e-6, nan_ok=True)


def test_a_store_without_an_attributed_image_has_a_gallery(tmp_path: Path) -> None:
    spec = AtlasSpec(clean=StoreSpec(conditions=("clean",)), measured={"attribution": [2] * 12})
    write_atlas_store(tmp_path / "a.zarr", spec)
    table = gallery_table(MeasuredStore(tmp_path / "a.zarr"))
    assert len(table.images) == 12
    assert "--attribution" in table.missing["attention_lead"]


def test_changes_are_whole_numbers(tmp_path: Path) -> None:
    table, _ = table_of(tmp_path, StoreSpec(images=60, blocks=50, grid=(1, 1), conditions=("clean",)))
    assert (table.images["changes"] % 1 == 0).all()
    assert table.images["changes"].nunique() > 5


def drawn(images: int, seed: int) -> Decisions:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(images, 5, 7)).cumsum(axis=1)
    top = np.argsort(-logits, axis=-1)[..., :5]
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return Decisions(
        top,
        np.take_along_axis(logits, top, axis=-1),
        np.take_along_axis(logits, np.broadcast_to(top[:, -1:], top.shape), axis=-1),
        np.log(np.exp(logits).sum(axis=-1)),
        -(shares * np.log(shares)).sum(axis=-1),
    )


def test_no_label_changes_the_doubt_of_its_own_image() -> None:
    """The doubt of others in the other half does change with it."""
    decisions, labeled = drawn(60, 0), np.ones(60, dtype=bool)
    wrong = np.random.default_rng(1).random(60) < 0.4
    before = cross_fitted(decisions, wrong, labeled, seed=0)
    assert before is not None
    for image in range(0, 60, 7):
        flipped = wrong.copy()
        flipped[image] = not wrong[image]
        after = cross_fitted(decisions, flipped, labeled, seed=0)
        assert after is not None
        assert after[image] == before[image]
        assert (after != before).sum() == 30


def test_doubt_is_that_of_scikit_learn_on_the_other_half() -> None:
    decisions = drawn(90, 2)
    rng = np.random.default_rng(3)
    labeled, wrong = rng.random(90) < 0.8, rng.random(90) < 0.4
    doubt = cross_fitted(decisions, wrong, labeled, seed=5)
    assert doubt is not None
    order = np.random.default_rng(5).permutation(np.flatnonzero(labeled))
    halves = np.array_split(order, [len(order) // 2])
    features = trajectory_features(decisions)
    wanted = []
    for half in halves:
        scaler = StandardScaler().fit(features[half])
        model = LogisticRegression(max_iter=10_000).fit(scaler.transform(features[half]), wrong[half])
        wanted.append(model.predict_proba(scaler.transform(features))[:, 1])
    # Two fits of the same images in another order stop at slightly other weights.
    np.testing.assert_allclose(doubt[halves[0]], wanted[1][halves[0]], atol=1e-3)
    np.testing.assert_allclose(doubt[halves[1]], wanted[0][halves[1]], atol=1e-3)
    np.testing.assert_allclose(doubt[~labeled], (wanted[0] + wanted[1])[~labeled] / 2, atol=1e-3)
