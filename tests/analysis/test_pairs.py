"""One row for each image, and two stores of the same images compared image by image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from classlens import Statistics, analyze
from classlens.cli import app
from classlens.store.open_store import open_group
from tests.analysis.stores import StoreSpec, write_store

QUICK = Statistics(permutations=99, resamples=200)
SPEC = StoreSpec(images=70, blocks=3, classes=5)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of the same images with the same labels: the second one predicts other classes, and lacks the last image."""
    folder = tmp_path_factory.mktemp("stores")
    confidence = np.linspace(0, 1, 70, dtype=np.float32)
    write_store(folder / "a.zarr", replace(SPEC, facts={"clean": {"confidence": confidence}}))
    target = open_group(folder / "a.zarr", "clean")["target"].values
    prediction = np.where(np.arange(70) % 2, target, (target + 2) % 5)
    facts = {
        "target": target,
        "label": target,
        "prediction": prediction,
        "correct": (prediction == target).astype(np.int8),
        "confidence": confidence / 2,
    }
    measured = {"clean": [1] * 69 + [0]}
    write_store(folder / "b.zarr", replace(SPEC, seed=1, facts={"clean": facts}, measured=measured))
    return folder / "a.zarr", folder / "b.zarr"


def test_a_row_for_each_image(stores: tuple[Path, Path]) -> None:
    table = analyze(stores[0], experiments="evolution", statistics=QUICK).images
    data = open_group(stores[0], "clean").load()
    names = data["class_name"].values
    assert table["image"].tolist() == [str(name) for name in data["image"].values]
    for column in ("label", "prediction"):
        assert table[column].tolist() == [names[number] for number in data[column].values]
    assert table["correct"].tolist() == data["correct"].values.tolist()
    np.testing.assert_array_equal(table["confidence"], data["confidence"].values)
    token = [str(kind) for kind in data["token_kind"].values].index("cls")
    after = data.sel(site="resid_post").isel(token=token)
    for image in range(70):
        ranks = [int(after["rank"].values[image, block]) for block in range(3)]
        assert table.loc[image, ["rank_0", "rank_1", "rank_2"]].tolist() == ranks
        expected = np.nan
        for block in (2, 1, 0):  # from the end, as long as the prediction is on top
            if after["top1"].values[image, block] != data["prediction"].values[image]:
                break
            expected = block
        np.testing.assert_equal(table.loc[image, "commitment"], expected)


def test_image_tokens_decide_by_half(tmp_path: Path) -> None:
    spec = StoreSpec(images=2, blocks=2, classes=5, prefix=(), grid=(1, 2))
    top1 = np.zeros((2, len(spec.sites), 2, 2), dtype=np.int16)
    top1[0, :, :, 0] = 3  # one of two tokens, from the first block on
    top1[1, :, 1] = 3  # both, from the second block on
    facts = {"top1": top1, "prediction": np.array([3, 3], dtype=np.int16)}
    write_store(tmp_path / "a.zarr", replace(spec, facts={"clean": facts}))
    images = analyze(tmp_path / "a.zarr", experiments="evolution", statistics=QUICK).images
    assert images["commitment"].tolist() == [0, 1]
    assert set(images["tokens"]) == {"image"}
    assert "pairs" not in analyze(tmp_path / "a.zarr", experiments="evolution", statistics=QUICK).all_tables


def test_pairs_of_images(stores: tuple[Path, Path]) -> None:
    result = analyze({"before": stores[0], "after": stores[1]}, experiments="evolution", statistics=QUICK)
    one, other = (result.images[result.images["model"] == name].set_index("image") for name in ("before", "after"))
    shared = other.index
    assert len(shared) == 69
    table = result.pairs.set_index(["measure", "block"])
    assert set(result.pairs["first"]) == {"before"}
    for measure in ("correct", "confidence"):
        row = table.loc[(measure, np.nan)].squeeze()
        change = other[measure] - one.loc[shared, measure]
        assert row["difference"] == pytest.approx(change.mean())
        assert row["value_second"] - row["value_first"] == pytest.approx(row["difference"])
        assert row["images"] == 69
        # The bootstrap of a mean is close to the normal interval.
        half = stats.norm.ppf(0.975) * change.std(ddof=0) / np.sqrt(69)
        assert row["high"] - row["low"] == pytest.approx(2 * half, rel=0.25)
    for block in range(3):
        ranks = [store.loc[shared, f"rank_{block}"] for store in (one, other)]
        assert table.loc[("identifiability", block), "difference"] == pytest.approx((ranks[0] - ranks[1]).mean() / 5)
    flipped = one.loc[shared, "prediction"] != other["prediction"]
    assert table.loc[("flipped", np.nan)].squeeze()["difference"] == pytest.approx(flipped.mean())
    assert result.flips["image"].tolist() == shared[flipped].tolist()
    assert (result.flips["prediction_second"].to_numpy() == other.loc[flipped, "prediction"].to_numpy()).all()


def test_other_images_are_not_compared(stores: tuple[Path, Path], tmp_path: Path) -> None:
    """Names alone, such as 0001.png, do not make two images one."""
    write_store(tmp_path / "c.zarr", replace(SPEC, data="folder:other"))
    result = analyze({"a": stores[0], "c": tmp_path / "c.zarr"}, experiments="evolution", statistics=QUICK)
    assert result.pairs.empty
    assert "pairs" not in result.all_tables


def test_names_on_the_command_line(stores: tuple[Path, Path], tmp_path: Path) -> None:
    def run(*given: str) -> str:
        out = tmp_path / "out"
        quick = ("--experiments", "evolution", "--permutations", "9", "--resamples", "9", "--out", str(out))
        done = CliRunner().invoke(app, ["analyze", *given, *quick])
        return done.output

    told = run(f"before={stores[0]}", f"after={stores[1]}")
    assert "before and after: " in told
    assert " of 69 predictions differ." in told
    for name in ("images", "pairs", "flips"):
        assert not pd.read_csv(tmp_path / "out" / "tables" / f"{name}.csv").empty
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "| measure | block | before | after | difference | p | images |" in summary
    assert "give names to all, or to none" in run(f"before={stores[0]}", str(stores[1]))
    assert "two stores have the name 'a'" in run(f"a={stores[0]}", f"a={stores[1]}")
