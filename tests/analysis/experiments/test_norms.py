"""Tables of token norms, of outliers, and of the classes that these have on top."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import mean, median

import numpy as np
import pytest

from classlens.analysis.analyze import analyze
from tests.analysis.literal import QUICK, assert_is_twin, positions, share, site_index, table_and_contents
from tests.analysis.stores import StoreSpec, Values


def tokens_of(spec: StoreSpec, facts: Values, image: int, block: int, kind: str) -> list[int]:
    """Positions of the tokens of a kind, by the definition of an outlier."""
    if kind == "cls":
        return positions(spec, "cls")
    among = positions(spec, "image")
    norms = {token: float(facts["norm"][image, block, token]) for token in among}
    middle = median(norms.values())
    limit = middle + 5 * median(abs(norm - middle) for norm in norms.values())
    return [token for token in among if kind == "image" or (norms[token] > limit) == (kind == "outlier")]


def saying(spec: StoreSpec, facts: Values, image: int, block: int, tokens: list[int], measure: str) -> float | None:
    """Share of tokens with the class of interest, or the prediction, on top; None without tokens."""
    if not tokens:
        return None
    post = site_index(spec, "resid_post")
    if measure in ("share_on_top", "tokens_identifiable"):
        return share([facts["rank"][image, post, block, token] == 0 for token in tokens])
    return share([facts["top1"][image, post, block, token] == facts["prediction"][image] for token in tokens])


@pytest.mark.parametrize("prefix", [("cls",), ()])
def test_norms(tmp_path: Path, prefix: tuple[str, ...]) -> None:
    spec = StoreSpec(images=20, grid=(2, 3), prefix=prefix)
    table, written = table_and_contents(tmp_path, spec, "norms")

    def twin(image: int, block: int, condition: str, tokens: str, measure: str) -> float | None:
        facts = written[condition]
        chosen = tokens_of(spec, facts, image, block, tokens)
        if measure == "share_of_tokens":
            return len(chosen) / len(positions(spec, "image"))
        if measure == "share_of_images":
            return float(bool(chosen))
        if measure == "norm":
            return mean(float(facts["norm"][image, block, token]) for token in chosen) if chosen else None
        return saying(spec, facts, image, block, chosen, measure)

    assert_is_twin(table, spec, "norms", twin)
    kinds = [*prefix, "ordinary", "outlier"]
    assert table["tokens"].unique().tolist() == kinds
    assert len(table) == 2 * 3 * (3 * len(kinds) + 2)


def test_outliers_and_the_model_without_them(tmp_path: Path) -> None:
    spec = StoreSpec(images=20, grid=(2, 3), conditions=("clean", "outliers_removed"))
    table, written = table_and_contents(tmp_path, spec, "outliers")
    last = spec.blocks - 1

    def twin(image: int, condition: str, tokens: str, measure: str) -> float | None:
        # Outliers are those of the unedited model under either condition.
        affected = bool(tokens_of(spec, written["clean"], image, last, "outlier"))
        if measure == "images_with_outliers":
            return float(affected)
        if not affected:
            return None
        if measure == "accuracy":
            return float(written[condition]["correct"][image])
        chosen = tokens_of(spec, written["clean"], image, last, tokens)
        return saying(spec, written[condition], image, last, chosen, measure)

    assert_is_twin(table, spec, "outliers", twin)
    assert len(table) == 1 + 2 * 3 + 1 + 2 + 1
    changed = table.dropna(subset="change").set_index(["tokens", "measure"])
    assert len(changed) == 3
    before = table.set_index(["condition", "tokens", "measure"])["value"]
    for (tokens, measure), row in changed.iterrows():
        unedited = before["clean", "image" if measure == "accuracy" else tokens, measure]
        assert row["change"] == pytest.approx(row["value"] - unedited, abs=1e-12)


def test_without_any_outlier_there_are_no_rates(tmp_path: Path) -> None:
    """And no classes; the share of images with outliers is 0."""
    norm = np.ones((12, 3, 5), dtype=np.float32)
    spec = StoreSpec(facts={"clean": {"norm": norm}}, conditions=("clean", "outliers_removed"))
    table, _ = table_and_contents(tmp_path, spec, "outliers")
    assert table[["measure", "value"]].to_numpy().tolist() == [["images_with_outliers", 0.0]]
    result = analyze(tmp_path / "made.zarr", experiments=["outlier_classes"], statistics=QUICK)
    assert not result.tables
    assert "no image has a value" in result.missing[0].reason


def test_classes(tmp_path: Path) -> None:
    spec = StoreSpec(images=30, grid=(3, 3), classes=12)
    table, written = table_and_contents(tmp_path, spec, "outlier_classes")
    facts, post, last = written["clean"], site_index(spec, "resid_post"), spec.blocks - 1

    def shares(image: int, kind: str) -> dict[int, float]:
        chosen = tokens_of(spec, facts, image, last, kind)
        counts = Counter(int(facts["top1"][image, post, last, token]) for token in chosen)
        return {category: count / len(chosen) for category, count in counts.items()}

    def twin(image: int, tokens: str, category: int, class_name: str) -> float | None:
        assert class_name == f"class {category}"
        return shares(image, tokens).get(category, 0.0) if shares(image, "outlier") else None

    assert_is_twin(table, spec, "outlier_classes", twin)
    total: Counter[int] = Counter()
    for image in range(spec.images):
        total.update(shares(image, "outlier"))
    shown = table.query("tokens == 'outlier'")["category"].tolist()
    assert len(shown) == 8
    assert min(total[category] for category in shown) >= max(
        total[category] for category in range(12) if category not in shown
    )
