"""`classlens atlas` as it is typed: its folder, its choices, and one line for a bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import classlens
from classlens.cli import app
from tests.analysis.atlas.stores import AtlasSpec, write_atlas_store
from tests.analysis.stores import StoreSpec
from tests.refusals import complaints

SPEC = AtlasSpec(clean=StoreSpec(images=24, classes=4, blocks=3, conditions=("clean",), memories=False))


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["atlas", *map(str, args)], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, and its photos beside it in a table whose classes have a column of an unknown name."""
    root = tmp_path_factory.mktemp("atlas")
    write_atlas_store(root / "run.zarr", SPEC)
    rng = np.random.default_rng(0)
    for number in range(24):
        pixels = rng.integers(0, 256, (80, 100 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number:04}.png")
    lines = "".join(f"{number:04}.png,thing {number % 4},x\n" for number in range(24))
    (root / "photos.csv").write_text(f"path,kind,other\n{lines}")
    return root


def names(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def test_from_a_store_to_pages(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "atlas"
    result = run(root / "run.zarr", "--data", f"list:{root / 'photos.csv'}", "--out", out, "--tables")
    assert result.exit_code == 0, result.output
    assert complaints(result.stderr) == []
    record = json.loads((out / "atlas.json").read_text(encoding="utf-8"))
    pages = {f"{kind}/{name}.html" for kind in ("heads", "units") for name in record[kind]}
    tables = classlens.atlas(root / "run.zarr").tables
    assert names(out) == {
        *pages,
        *("atlas.json", "index.html"),
        *(f"classes/{index}.html" for index in range(4)),
        *(f"blocks/{index}.html" for index in range(3)),
        *(f"tables/{name}.parquet" for name in tables),
    }
    assert record["heads"] == ["0.0", "0.1", "0.2", "1.0", "1.1", "2.0", "2.1", "2.2"]
    pd.testing.assert_frame_equal(pd.read_parquet(out / "tables" / "writers.parquet"), tables["writers"])
    said = " ".join(result.stdout.split())
    assert f"Pages: 4 classes, 3 blocks, 8 heads, {len(record['units'])} units; " in said
    assert f"Atlas: {out / 'index.html'}" in said
    assert "gone" not in said
    assert "whole photos stand in the place of crops" in (out / "index.html").read_text(encoding="utf-8")
    assert (out / "heads" / "1.0.html").read_text(encoding="utf-8").count("data:image/jpeg") == 9


def test_choices(root: Path, tmp_path: Path) -> None:
    classes = classlens.atlas(root / "run.zarr").class_names
    result = run(
        *(root / "run.zarr", "--no-photos", "--out", tmp_path / "out", "--classes", f"{classes[2].upper()}, 0"),
        *("--heads", "1.1,0.2", "--units", "2.6", "--units-per-class", "0"),
    )
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "out") == {
        *("atlas.json", "index.html", "classes/0.html", "classes/2.html", "heads/0.2.html", "heads/1.1.html"),
        *("blocks/0.html", "blocks/1.html", "blocks/2.html", "units/2.6.html"),
    }
    assert "Pages: 2 classes, 3 blocks, 2 heads, 1 units; 0 crops of photos" in " ".join(result.stdout.split())


def test_photos_that_are_gone(root: Path, tmp_path: Path) -> None:
    lines = "".join(f"{number:04}.png\n" for number in range(20))
    for number in range(20):
        (tmp_path / f"{number:04}.png").write_bytes((root / f"{number:04}.png").read_bytes())
    (tmp_path / "photos.txt").write_text(lines)
    result = run(root / "run.zarr", "--data", f"list:{tmp_path / 'photos.txt'}", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    missing = json.loads((tmp_path / "out" / "atlas.json").read_text())["missing_photos"]
    assert set(missing) <= {f"{number:04}.png" for number in range(20, 24)}
    assert len(missing) > 1
    assert f"{len(missing)} photos are gone, unreadable or changed since they were measured, such as" in result.stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("/nowhere.zarr",), "does not exist"),
        (("{root}/plain.zarr",), "has no attribution"),
        (("{store}",), "the photos of the store cannot be opened"),
        (("{store}", "--data", "folder:/nowhere"), "'/nowhere' is not a folder"),
        (("{store}", "--data", "list:{root}/other.txt"), "has none of the 2"),
        (("{store}", "--no-photos", "--data", "folder:x"), "--data and --no-photos were both given"),
        (("{store}", "--no-photos", "--heads", "4"), "--heads '4' is not understood"),
        (("{store}", "--no-photos", "--heads", ","), "--heads ',' is not understood"),
        (("{store}", "--no-photos", "--heads", "1.2"), "head 1.2 is not one of this atlas"),
        (("{store}", "--no-photos", "--units", "0.9"), "unit 0.9 is not one of this atlas"),
        (("{store}", "--no-photos", "--classes", "nonsense"), "class 'nonsense' is not one of this model's 4"),
        (("{store}", "--no-photos", "--classes", ","), "names no class"),
        (("{store}", "--no-photos", "--confidence", "95"), "confidence 95.0 cannot be used"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_2(root: Path, tmp_path: Path, args: tuple[str, ...], says: str) -> None:
    (root / "other.txt").write_text("a.png\n")
    if "plain" in args[0] and not (root / "plain.zarr").exists():
        from tests.analysis.stores import write_store

        write_store(root / "plain.zarr", SPEC.clean)
    result = run(*(arg.format(root=root, store=root / "run.zarr") for arg in args), "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    (line,) = complaints(result.stderr)
    assert says in line
    assert list(tmp_path.iterdir()) == []


def test_many_classes_are_chosen(tmp_path: Path) -> None:
    spec = AtlasSpec(
        clean=StoreSpec(images=600, classes=250, blocks=2, conditions=("clean",), memories=False), heads=(1, 1)
    )
    write_atlas_store(tmp_path / "run.zarr", spec)
    out = tmp_path / "out"
    result = run(tmp_path / "run.zarr", "--no-photos", "--out", out)
    assert result.exit_code == 2
    assert "pages of more than 200 are written on request alone: choose some with --classes" in result.stderr
    assert not out.exists()
    table = classlens.atlas(tmp_path / "run.zarr")["classes"]
    some = table.loc[table["images"] > 0, "category"].iloc[-1]
    assert run(tmp_path / "run.zarr", "--no-photos", "--out", out, "--classes", str(some)).exit_code == 0
    assert (out / "classes" / f"{some}.html").is_file()


def test_other_files_are_left_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    result = run(root / "run.zarr", "--no-photos", "--out", tmp_path)
    assert result.exit_code == 2
    assert "holds other files and no atlas.json" in result.stderr
    assert names(tmp_path) == {"notes.txt"}
