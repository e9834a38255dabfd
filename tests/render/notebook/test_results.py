"""Atlases, evaluations and other results in a notebook: a few numbers of their tables, and no name that acts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import classlens
from classlens import AblateResult, Atlas, EvaluateResult, MeasureResult, ReliabilityResult, Statistics
from classlens.core.error_detection import MEASURES
from classlens.text import visible
from tests.analysis.atlas.stores import AtlasSpec, write_atlas_store
from tests.analysis.stores import StoreSpec
from tests.render.browser import quiet
from tests.render.notebook.hosts import HOSTILE, cells, elements, show, texts

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TAGS = {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "code", "b"}
RUN = MeasureResult("photos.zarr", 1234, 1000, {HOSTILE[0]: HOSTILE[1]}, 61.25, 32, unlabeled=7)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    store = tmp_path_factory.mktemp("atlas") / "atlas.zarr"
    write_atlas_store(store, AtlasSpec(clean=StoreSpec(images=30)))
    return classlens.atlas(store)


def test_an_atlas_shows_its_strongest_parts(atlas: Atlas) -> None:
    html = atlas._repr_html_()
    text, rows = texts(html), cells(html)
    assert f"Atlas of {atlas.attrs['model']}" in text
    correct, labeled = int(atlas["classes"]["correct"].sum()), int(atlas["classes"]["images"].sum())
    assert f"accuracy {round(100 * correct / labeled)}% of {labeled} labeled images" in text
    assert 'atlas["writers"]' in text
    assert len(html) < 60_000
    # Loops over the table of contributions.
    for sublayer, prefix, count in (("attn", "head ", 8), ("mlp", "MLP ", 4)):
        means: dict[tuple[int, int], list[tuple[float, str]]] = {}
        for row in atlas["writers"].to_dict("records"):
            if row["group"] == "all" and row["sublayer"] == sublayer and row["images"] > 0:
                written = means.setdefault((row["block"], row["head"]), [])
                written.append((row["contribution"], atlas.class_names[row["category"]]))
        strongest = sorted(means.items(), key=lambda item: -max(item[1])[0])[:count]
        expected = [
            [
                prefix + (f"{block}.{head}" if head >= 0 else str(block)),
                ", ".join(f"{name} {value:+.2f}".replace("-", "−") for value, name in sorted(written)[::-1][:3]),
            ]
            for (block, head), written in strongest
        ]
        assert [row for row in rows if row[0].startswith(prefix)] == expected
        assert expected
    lowest = atlas["classes"].query("images > 0").sort_values("accuracy", kind="stable").iloc[0]
    assert [row[2] for row in rows if row[0] == lowest["class_name"] and len(row) == 3] == [str(lowest["images"])]


def test_an_atlas_without_labels(tmp_path: Path) -> None:
    write_atlas_store(tmp_path / "atlas.zarr", AtlasSpec(clean=StoreSpec(images=9, labels=False)))
    text = texts(classlens.atlas(tmp_path / "atlas.zarr")._repr_html_())
    assert "no labels" in text
    assert "Classes that are predicted most" in text
    assert "nan" not in text


def test_an_evaluation_shows_scores_with_the_best_in_bold() -> None:
    html = evaluation()._repr_html_()
    assert cells(html) == [["rollout", "0.500 (0.400 to 0.600)"], [visible(HOSTILE[1]), "−0.100 (−0.200 to 0.000)"]]
    assert [bold.text for bold in elements(html).iter("b")] == ["0.500 (0.400 to 0.600)"]
    assert "Not measured: removal: why." in texts(html)


def evaluation() -> EvaluateResult:
    columns = ["model", "method", "metric", "measure", "value", "low", "high", "images", "better"]
    columns += ["difference", "difference_low", "difference_high"]
    shared = ("pointing", "share_inside")
    rows = [
        (HOSTILE[1], "rollout", *shared, 0.5, 0.4, 0.6, 9, "higher", 0.0, 0.0, 0.0),
        (HOSTILE[1], HOSTILE[1], *shared, -0.1, -0.2, 0.0, 9, "higher", -0.6, -0.7, -0.5),
    ]
    curves = pd.DataFrame(columns=["model", "method", "metric", "curve", "x", "value", "low", "high"])
    return EvaluateResult(pd.DataFrame(rows, columns=columns), curves, {"removal": "why"}, RUN, Statistics())


def reliability() -> ReliabilityResult:
    row = {"value": 0.75, "low": 0.7, "high": 0.8, "images": 20, "better": "higher"}
    best = {"difference": 0.0, "difference_low": 0.0, "difference_high": 0.0}
    scores = pd.DataFrame([{"method": "trajectory", "measure": measure, **row, **best} for measure in MEASURES])
    images = pd.DataFrame(
        {
            "image": [f"{HOSTILE[number % 4]}{number}" for number in range(12)],
            "label": HOSTILE[1],
            "prediction": HOSTILE[2],
            "confidence": 0.5,
            "correct": [0.0, 1.0, float("nan")] * 4,
            "trajectory": [1 - number / 20 for number in range(12)],
        }
    )
    facts: dict[str, Any] = {"model": HOSTILE[0], "data": HOSTILE[1], "images": 20, "wrong": 3}
    return ReliabilityResult(scores, pd.DataFrame(), images, facts, facts, Statistics())


def test_a_reliability_test_shows_scores_and_doubtful_images() -> None:
    html = reliability()._repr_html_()
    scores, *images = cells(html)
    assert scores[1:] == ["0.750 (0.700 to 0.800)"] * len(MEASURES)
    assert [row[1] for row in images] == [f"{1 - number / 20:.3f}" for number in range(10)]
    assert [row[4] for row in images[:3]] == ["wrong", "right", ""]
    assert "10 of 12" in texts(html)


def ablation() -> AblateResult:
    number = {"value": 0.9, "low": 0.8, "high": 1.0, "number": 30}
    agreement = pd.DataFrame([{"score": HOSTILE[1], "measure": "mean", **number}])
    drop = {"drop": 0.2, "low": 0.1, "high": 0.3, "beyond_chance": 0.15, "beyond_low": 0.05, "beyond_high": 0.25}
    held_out = pd.DataFrame([{"measure": "accuracy", "class": HOSTILE[2], "score": "ablation", **drop}] * 12)
    none = pd.DataFrame()
    return AblateResult(none, agreement, held_out, none, none, {}, RUN, Statistics())


def test_an_ablation_shows_agreement_and_held_out_tests() -> None:
    rows = cells(ablation()._repr_html_())
    assert rows[0] == [visible(HOSTILE[1]), "mean", "0.900 (0.800 to 1.000)", "30"]
    held_out = ["accuracy", visible(HOSTILE[2]), "ablation", "0.200 (0.100 to 0.300)", "0.150 (0.050 to 0.250)"]
    assert rows[1:] == [held_out] * 10


def test_a_run_shows_its_counts() -> None:
    rows = dict(cells(RUN._repr_html_()))
    assert rows["images"] == "1,234"
    assert rows["of these measured earlier"] == "1,000"
    assert rows["skipped"] == "1"
    assert rows["without a label"] == "7"
    assert f"Skipped {visible(HOSTILE[0])}: {visible(HOSTILE[1])}" in texts(RUN._repr_html_())


def hostile_atlas(atlas: Atlas) -> Atlas:
    names = [f"{HOSTILE[number % 4]} {number}" for number in range(len(atlas.class_names))]
    classes = atlas["classes"].assign(class_name=names)
    attrs = {**atlas.attrs, "model": HOSTILE[0], "data": HOSTILE[1]}
    return replace(atlas, class_names=names, tables={**atlas.tables, "classes": classes}, attrs=attrs)


def test_hostile_names_stay_names(atlas: Atlas) -> None:
    for shown in (hostile_atlas(atlas), evaluation(), reliability(), ablation(), RUN):
        html = shown._repr_html_()
        assert {one.tag for one in elements(html).iter()} <= TAGS
        assert all(char.isprintable() for char in html)


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_tables_are_shown_in_a_notebook(width: int, atlas: Atlas, browser: Browser, tmp_path: Path) -> None:
    results = [hostile_atlas(atlas), evaluation(), reliability(), ablation(), RUN]
    html = "".join(result._repr_html_() for result in results)
    with quiet(browser, viewport={"width": width, "height": 900}) as page:
        show(page, tmp_path, html)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        tables = page.locator("#cell table").all()
        assert len(tables) == 9
        for table in tables:
            assert table.is_visible()
        fonts = page.eval_on_selector_all("#cell td", "all => all.map((one) => getComputedStyle(one).fontSize)")
        assert set(fonts) == {"13px"}
        assert page.locator("#injected, img, script").count() == 0
