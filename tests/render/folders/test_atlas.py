"""An atlas as a folder: complete or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from classlens.analysis.atlas.atlas import Atlas
from classlens.analysis.atlas.tables import TABLES
from classlens.data.dataset import Dataset
from classlens.render.atlas_record import choose_pages
from classlens.render.folders.atlas import WrittenAtlas, token_places, write_atlas
from tests.refusals import refused
from tests.render.atlases import AtlasSizes, image_names, make_atlas, photo_folder

SIZES = AtlasSizes(classes=("a", "b"), images_per_class=5, blocks=2, heads=2, units=3)
Write = Callable[..., WrittenAtlas]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return photo_folder(tmp_path_factory.mktemp("photos"), SIZES)


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return make_atlas(SIZES)


def test_a_folder_with_tables(atlas: Atlas, photos: Dataset, tmp_path: Path) -> None:
    pages = choose_pages(atlas.tables)
    reports: list[tuple[str, int, int]] = []
    written = write_atlas(
        atlas,
        pages,
        tmp_path / "out",
        dataset=photos,
        version="1",
        tables=True,
        report=lambda *all: reports.append(all),
    )
    html = sorted((tmp_path / "out").rglob("*.html"))
    assert tuple(written) == (len(html), len(token_places(atlas, pages)), ())
    assert reports[-1] == ("writing the pages", len(html), len(html))
    for name in TABLES:
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out" / "tables" / f"{name}.parquet"), atlas[name])
    record = json.loads((tmp_path / "out" / "atlas.json").read_text(encoding="utf-8"))
    assert record["classes"] == [0, 1]
    assert record["heads"] == ["0.0", "0.1", "1.0", "1.1"]
    assert record["units"] == [f"{block}.{unit}" for block, unit in pages.units]
    assert sum(path.read_text(encoding="utf-8").count("data:image/jpeg") for path in html) >= written.crops
    # A second one takes the place of the first, with its tables.
    few = choose_pages(atlas.tables, classes=[1], heads=[(1, 0)], units_per_class=0)
    write_atlas(atlas, few, tmp_path / "out", dataset=None, version="1")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {
        *("atlas.json", "index.html", "classes/1.html", "heads/1.0.html", "blocks/0.html", "blocks/1.html")
    }
    assert "data:image/jpeg" not in (tmp_path / "out" / "heads" / "1.0.html").read_text(encoding="utf-8")


def test_a_folder_with_other_things_is_left_alone(atlas: Atlas, tmp_path: Path) -> None:
    pages = choose_pages(atlas.tables)
    write_atlas(atlas, pages, tmp_path / "out", dataset=None, version="1")
    (tmp_path / "out" / "classes" / "notes.html").write_text("mine")
    refused(
        lambda: write_atlas(atlas, pages, tmp_path / "out", dataset=None, version="1"),
        "'classes/notes.html'",
        "nothing was written",
    )
    assert (tmp_path / "out" / "classes" / "notes.html").read_text() == "mine"


def test_nothing_half_written_stays(atlas: Atlas, photos: Dataset, tmp_path: Path) -> None:
    broken = atlas["writers"].assign(block=lambda table: table["block"].replace(1, 7))
    twice = replace(atlas, tables={**atlas.tables, "heads": pd.concat([atlas["heads"]] * 2), "writers": broken})
    pages = choose_pages(twice.tables, heads=[(0, 0)])
    with pytest.raises(ValueError, match="too many values"):
        write_atlas(twice, pages, tmp_path / "out", dataset=None, version="1")
    assert list(tmp_path.iterdir()) == []
    pages = choose_pages(atlas.tables)
    elsewhere = replace(photos, names=tuple(f"other/{name}" for name in image_names(SIZES)))
    refused(
        lambda: write_atlas(atlas, pages, tmp_path / "out", dataset=elsewhere, version="1"),
        "has none of the 10 photos that the pages show",
        "--no-photos",
    )
    assert list(tmp_path.iterdir()) == []


def test_choices_of_pages(atlas: Atlas) -> None:
    tables = atlas.tables
    pages = choose_pages(tables, classes=[1, 1], heads=[(1, 1), (0, 0)], units=[(1, 2)], units_per_class=1)
    assert (pages.classes, pages.heads) == ((1,), ((0, 0), (1, 1)))
    writer = tables["unit_writers"].query("category == 1").iloc[0]
    values = tables["unit_values"].query("category == 1 and class_rank == 0").nlargest(1, "score").iloc[0]
    named = {(int(row["block"]), int(row["unit"])) for row in (writer, values)}
    assert set(pages.units) == {(1, 2)} | named
    assert (pages.class_page(0), pages.class_page(1)) == (None, "classes/1.html")
    refused(lambda: choose_pages(tables, heads=[(1, 2)]), "head 1.2 is not one of this atlas", "up to 1.1")
    refused(lambda: choose_pages(tables, units=[(2, 0)]), "unit 2.0 is not one of this atlas", "up to 1.2")
    without = make_atlas(replace(SIZES, units=0, tokens=False)).tables
    refused(lambda: choose_pages(without, units=[(0, 0)]), "the store has no units", "--units")
    empty = {**tables, "classes": tables["classes"].assign(images=[5, 0])}
    assert choose_pages(empty).classes == (0,)
    refused(lambda: choose_pages(empty, classes=[1]), "class 'b' has no image in the store")


@pytest.mark.slow
def test_ten_classes_and_144_heads_stay_below_60_megabytes(tmp_path: Path) -> None:
    sizes = AtlasSizes(classes=tuple("abcdefghij"), images_per_class=30, heads=12, units=3072)
    atlas = make_atlas(sizes)
    photos = photo_folder(tmp_path / "photos", sizes)
    write_atlas(atlas, choose_pages(atlas.tables), tmp_path / "out", dataset=photos, version="1")
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.html")) < 60e6
