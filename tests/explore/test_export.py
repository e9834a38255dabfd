"""Static sites: chosen photos and classes, photos that are gone, and what stores say of themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
from starlette.applications import Starlette

import classlens
from classlens.analysis.measured_store import MeasuredStore
from classlens.data.dataset import Dataset
from classlens.errors import ClasslensError
from classlens.explore.explorer import Explored, Explorer, open_stores
from classlens.explore.export import export_site
from classlens.lens.lens import Lens
from classlens.render.method_maps import method_maps
from tests.analysis.atlas.stores import AtlasSpec, write_atlas_store
from tests.analysis.stores import StoreSpec, write_store
from tests.explore.asking import ask
from tests.explore.conftest import MARKUP

CLEAN = StoreSpec(images=4, conditions=("clean",))


def _without_photos(store: MeasuredStore) -> Dataset:
    raise ClasslensError("the photos are gone")


def _element(text: str, name: str) -> Any:
    match = re.search(rf'id="{name}">(.*?)</script>', text)
    assert match is not None
    return json.loads(match[1])


def test_a_list_chooses_the_photo_of_its_folder(tmp_path: Path) -> None:
    """Folders of classes hold files of equal names."""
    write_store(tmp_path / "a.zarr", CLEAN)
    store = Explored(0, MeasuredStore(tmp_path / "a.zarr"), None, None, "no photos")
    store.__dict__["names"] = ["cat/0.png", "dog/0.png", "dog/1.png", "old/dog/0.png"]
    explorer = Explorer([store], None, "1", live=False)
    chosen = tmp_path / "chosen.txt"
    for text, expected in (
        ("/data/cat/0.png", [0]),
        ("dog/0.png", [1, 3]),
        ("/old/dog/0.png\ndog/1.png", [2, 3]),
        ("0.png", [0, 1, 3]),
    ):
        chosen.write_text(text)
        export_site(explorer, tmp_path / "site", images=f"list:{chosen}")
        assert _element((tmp_path / "site/s0/index.html").read_text(), "gallery")["index"] == expected, text


def test_classes_are_those_of_each_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is another index in a store with other classes; a store without the class has no page of it."""
    names = {"a": ["cat", "dog", "ship"], "b": ["ship", "cat", "car"]}
    explored = []
    for number, (name, classes) in enumerate(names.items()):
        facts = {"clean": {"label": np.array([0, 1, 0, 1])}}
        spec = AtlasSpec(clean=StoreSpec(images=4, conditions=("clean",), classes=3, facts=facts))
        write_atlas_store(tmp_path / f"{name}.zarr", spec)
        measured = MeasuredStore(tmp_path / f"{name}.zarr")
        monkeypatch.setattr(measured, "class_names", lambda classes=classes: classes)
        explored.append(Explored(number, measured, None, None, "no photos"))
    explorer = Explorer(explored, None, "1", live=False)
    for chosen, expected in (("cat", {"s0/0", "s1/1"}), ("dog", {"s0/1"}), ("ship,1", {"s0/1", "s1/0", "s1/1"})):
        export_site(explorer, tmp_path / "site", classes=chosen)
        pages = (tmp_path / "site").glob("s*/atlas/classes/*.html")
        assert {f"{page.parts[-4]}/{page.stem}" for page in pages} == expected, chosen
    for chosen, words in (("car", "no photo is of class 'car'"), ("bus", "'bus' is not one")):
        with pytest.raises(ClasslensError, match=words):
            export_site(explorer, tmp_path / "other", classes=chosen)
        assert not (tmp_path / "other").exists()


def test_a_site_without_photos_has_the_pages_of_the_store(
    measured_folder: Path, small_lens: Lens, tmp_path: Path
) -> None:
    stores = open_stores([MeasuredStore(str(measured_folder / MARKUP))], small_lens, _without_photos)
    assert stores[0].lens is not None
    assert stores[0].notes == ("the photos are gone",)
    export_site(Explorer(stores, small_lens, "1", live=False), tmp_path / "site")
    assert (tmp_path / "site/s0/atlas/index.html").exists()
    assert not (tmp_path / "site/s0/photos").exists()
    assert not _element((tmp_path / "site/s0/index.html").read_text(), "gallery")["opens"]


def test_stores_of_one_name_have_titles_that_tell_them_apart(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("x/run/a.zarr", "y/run/a.zarr", "y/run/b.zarr")]
    for path in paths:
        write_store(path, CLEAN)
    stores = open_stores([MeasuredStore(path) for path in paths], None, _without_photos)
    assert [store.title for store in stores] == ["x/run/a", "y/run/a", "b"]


def test_a_model_with_another_transform_is_told(measured_folder: Path, explored: list[Explored]) -> None:
    assert explored[0].notes == ()
    other = classlens.load("builtin:cifar10", mean=0.3)
    note = Explored(0, explored[0].measured, explored[0].dataset, other).notes[0]
    assert "another transform" in note
    other = classlens.load("builtin:cifar10", dtype="float64")
    assert "add --dtype float32" in Explored(0, explored[0].measured, None, other).without_lens


def test_a_number_written_otherwise_has_no_page(app: Starlette) -> None:
    while ask(app, "/s0/atlas/units/04.0.html").status == 202:
        pass
    assert ask(app, "/s0/atlas/units/04.0.html").status == 404


def test_a_saved_report_is_that_of_the_class(app: Starlette) -> None:
    answer = ask(app, "/api/s0/photos/0/report.html?class=7&against=2")
    image = _element(answer.text, "image-0")
    assert (image["target"]["index"], image["against"]["index"]) == (7, 2)
    assert ask(app, "/api/s0/photos/0/maps?class=7&against=7").status == 400


def test_maps_against_a_class_are_those_of_the_method(explored: list[Explored], small_lens: Lens) -> None:
    trace = small_lens.trace([explored[0].picture(0)])
    for row in method_maps(trace, 7, 2)["methods"]:
        options = {"against": 2} if row["name"] in ("chefer", "class_gradient", "class_rank", "log_odds") else {}
        if options or row["name"] == "attention":
            expected = trace.map(7, method=row["name"], **options).values[0]
            np.testing.assert_allclose(row["values"], expected, atol=1e-6 * np.abs(expected).max(), err_msg=row["name"])
    with pytest.raises(ClasslensError, match="compared with itself"):
        method_maps(trace, 7, 7)
