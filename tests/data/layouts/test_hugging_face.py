"""Data sets of the library ``datasets``, whose place a small stand-in takes."""

from __future__ import annotations

import io
import pickle
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from classlens.data.open_dataset import open_dataset
from tests.data.pictures import picture
from tests.refusals import refused


@dataclass
class Image:
    decode: bool = True


@dataclass
class ClassLabel:
    names: list[str]


@dataclass
class Value:
    dtype: str


@dataclass
class Table:
    """The part of ``datasets.Dataset`` that the layout uses."""

    features: dict[str, Any]
    columns: dict[str, list[Any]]
    _fingerprint: str = "abc"

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return self.columns[key]
        row = {name: values[key] for name, values in self.columns.items()}
        for name, feature in self.features.items():
            if isinstance(feature, Image) and feature.decode and isinstance(row[name], dict):
                row[name] = Pillow.open(io.BytesIO(row[name]["bytes"]))
        return row

    def cast_column(self, name: str, feature: Any) -> Table:
        return replace(self, features={**self.features, name: feature})


@dataclass
class Hub:
    tables: dict[str, Any] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    library: Any = ModuleType("datasets")
    library.Image = Image

    def load_dataset(name: str, config: str | None = None) -> Any:
        hub.requests.append((name, config))
        if name not in hub.tables:
            raise FileNotFoundError(f"Couldn't find {name!r} anywhere. Try copy later.\nMore.")
        return hub.tables[name]

    def load_from_disk(path: str) -> Any:
        hub.requests.append((path, "disk"))
        return hub.tables[path]

    library.load_dataset, library.load_from_disk = load_dataset, load_from_disk
    monkeypatch.setitem(sys.modules, "datasets", library)
    return hub


def cell(value: int, mode: str = "L") -> dict[str, Any]:
    file = io.BytesIO()
    Pillow.new(mode, (3, 2), value).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def table(count: int = 3, **columns: tuple[Any, list[Any]]) -> Table:
    features = {"image": (Image(), [cell(number) for number in range(count)])} | columns
    return Table(
        {name: kind for name, (kind, _) in features.items()}, {name: values for name, (_, values) in features.items()}
    )


def labeled(count: int = 3) -> Table:
    return table(count, label=(ClassLabel(["ant", "bee"]), [number % 2 for number in range(count)]))


def test_a_data_set_of_the_hub(hub: Hub) -> None:
    hub.tables["me/insects"] = {"train": labeled(5), "validation": labeled(3)}
    data = open_dataset("hf:me/insects")
    assert hub.requests == [("me/insects", None)]
    assert data.split == "validation"
    assert data.names == ("validation/000000", "validation/000001", "validation/000002")
    assert data.labels.tolist() == [0, 1, 0]
    assert [category.name for category in data.classes] == ["ant", "bee"]
    assert np.asarray(data.picture(2)).tolist() == [[[2, 2, 2]] * 3] * 2
    assert not data.has_masks
    assert data.mask(0) is None
    assert open_dataset("hf:me/insects", per_class=1).names == ("validation/000000", "validation/000001")


def test_splits_and_configurations(hub: Hub) -> None:
    hub.tables["insects"] = {"train": labeled(5), "test": labeled(3)}
    assert open_dataset("hf:insects@small").split == "test"
    assert hub.requests == [("insects", "small")]
    assert len(open_dataset("hf:insects", split="train")) == 5
    refused(lambda: open_dataset("hf:insects", split="tests"), "'hf:insects'", "'tests'", "mean 'test'", "train, test")


def test_unknown_splits_need_a_choice(hub: Hub) -> None:
    hub.tables["insects"] = {"red": labeled(), "blue": labeled()}
    assert "None" not in refused(lambda: open_dataset("hf:insects"), "'hf:insects'", "red, blue")
    assert open_dataset("hf:insects", split="blue").names[0] == "blue/000000"


@pytest.mark.parametrize("file", ["dataset_dict.json", "state.json"])
def test_a_saved_folder(hub: Hub, file: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text("{}")
    hub.tables[str(tmp_path)] = {"test": labeled()} if file == "dataset_dict.json" else labeled()
    data = open_dataset(f"hf:{tmp_path}")
    assert hub.requests == [(str(tmp_path), "disk")]
    assert data.names[0] == ("test/000000" if file == "dataset_dict.json" else "data/000000")


def test_one_table_has_no_splits(hub: Hub) -> None:
    hub.tables["insects"] = labeled()
    assert open_dataset("hf:insects").split is None
    refused(lambda: open_dataset("hf:insects", split="test"), "'hf:insects'", "'test'")


def test_no_labels(hub: Hub) -> None:
    hub.tables["insects"] = table(2)
    data = open_dataset("hf:insects")
    assert data.labels.tolist() == [-1, -1]
    assert data.classes == ()


def test_the_column_of_labels(hub: Hub) -> None:
    hub.tables["insects"] = table(
        2, caption=(Value("string"), ["x", "y"]), kind=(ClassLabel(["ant", "bee"]), [1, 0]), label=(Image(), [])
    )
    del hub.tables["insects"].features["label"]
    assert open_dataset("hf:insects").labels.tolist() == [1, 0]
    data = open_dataset("hf:insects", label_column="caption")
    assert [category.name for category in data.classes] == ["x", "y"]
    assert open_dataset("hf:insects", label_column="none").classes == ()
    refused(lambda: open_dataset("hf:insects", label_column="kinds"), "'kinds'", "did you mean 'kind'", "caption, kind")
    hub.tables["captions"] = table(2, caption=(Value("string"), ["x", "y"]))
    refused(lambda: open_dataset("hf:captions"), "the columns caption", "--label-column")


@pytest.mark.parametrize(
    ("values", "labels", "classes"),
    [(["bee", "ant", None], [1, 0, -1], ["ant", "bee"]), ([7, -1, 3], [1, -1, 0], ["3", "7"])],
)
def test_labels_as_text_or_numbers(hub: Hub, values: list[Any], labels: list[int], classes: list[str]) -> None:
    hub.tables["insects"] = table(3, Class=(Value("string"), values), caption=(Value("string"), ["x", "y", "z"]))
    data = open_dataset("hf:insects")
    assert data.labels.tolist() == labels
    assert [category.name for category in data.classes] == classes
    hub.tables["both"] = table(3, label=(Value("string"), values), target=(Value("string"), values))
    refused(lambda: open_dataset("hf:both"), "several columns of classes (label, target)")


def test_missing_labels(hub: Hub) -> None:
    hub.tables["insects"] = table(3, kind=(ClassLabel(["ant", "bee"]), [1, None, -1]))
    assert open_dataset("hf:insects").labels.tolist() == [1, -1, -1]


def test_several_columns(hub: Hub) -> None:
    kinds = ClassLabel(["ant", "bee"])
    hub.tables["fine"] = table(2, coarse=(kinds, [0, 0]), label=(kinds, [1, 0]))
    assert open_dataset("hf:fine").labels.tolist() == [1, 0]
    hub.tables["both"] = table(2, coarse=(kinds, [0, 0]), fine=(kinds, [1, 0]))
    refused(lambda: open_dataset("hf:both"), "'hf:both'", "coarse, fine")
    hub.tables["two"] = table(1, other=(Image(), [cell(1)]))
    refused(lambda: open_dataset("hf:two"), "'hf:two'", "2 columns of images")
    hub.tables["none"] = Table({"text": Value("string")}, {"text": ["x"]})
    refused(lambda: open_dataset("hf:none"), "'hf:none'", "0 columns of images", "text")


def test_kinds_of_image_cells(hub: Hub, tmp_path: Path) -> None:
    Pillow.new("L", (3, 2), 9).save(tmp_path / "a.png")
    cells = [cell(7, "P"), {"bytes": None, "path": str(tmp_path / "a.png")}, Pillow.new("RGBA", (3, 2), (5, 5, 5, 0))]
    hub.tables["insects"] = table(3, image=(Image(), cells))
    data = open_dataset("hf:insects")
    assert [data.picture(index).mode for index in range(3)] == ["RGB"] * 3
    assert [data.picture(index).getpixel((0, 0)) for index in (1, 2)] == [(9, 9, 9), (5, 5, 5)]


def test_the_error_names_a_damaged_image(hub: Hub) -> None:
    deep = io.BytesIO()
    Pillow.fromarray(np.full((2, 2), -5, dtype=np.float32)).save(deep, "TIFF")
    cells = [
        {"bytes": b"no image", "path": None},
        {"bytes": cell(3)["bytes"][:-30], "path": None},
        {"bytes": None, "path": "/gone.png"},
        {"bytes": deep.getvalue(), "path": None},
        None,
    ]
    hub.tables["insects"] = table(5, image=(Image(), cells))
    data = open_dataset("hf:insects")
    for index in range(5):
        refused(lambda index=index: data.picture(index), f"'data/00000{index}'")  # type: ignore[misc]


def test_an_unknown_name(hub: Hub) -> None:
    message = refused(lambda: open_dataset("hf:nobody/nothing"), "'hf:nobody/nothing'", "Couldn't find")
    assert "More" not in message


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused(lambda: open_dataset("hf:insects"), "'hf:insects'", "pip install 'classlens[huggingface]'")


def test_an_empty_table(hub: Hub) -> None:
    hub.tables["insects"] = labeled(0)
    refused(lambda: open_dataset("hf:insects"), "'hf:insects'", "no images")


def test_the_fingerprint_is_that_of_the_table(hub: Hub) -> None:
    hub.tables["insects"] = labeled()
    before = open_dataset("hf:insects")
    copy = pickle.loads(pickle.dumps(before))
    assert copy.content_digest == before.content_digest == open_dataset("hf:insects").content_digest
    assert copy.picture(1).tobytes() == before.picture(1).tobytes()
    hub.tables["insects"] = replace(labeled(), _fingerprint="def")
    assert open_dataset("hf:insects").content_digest != before.content_digest


@pytest.mark.slow  # the library does not load with the lowest versions of others
def test_the_real_library(tmp_path: Path) -> None:
    """A folder that the library itself saved, decoded by both."""
    library = pytest.importorskip("datasets")
    pictures = [picture(number) for number in range(4)]
    features = library.Features({"image": library.Image(), "label": library.ClassLabel(names=["cat", "dog"])})
    table = library.Dataset.from_dict({"image": pictures, "label": [0, 1, 1, 0]}, features=features)
    library.DatasetDict({"train": table, "test": table}).save_to_disk(str(tmp_path))
    data = open_dataset(f"hf:{tmp_path}")
    assert data.split == "test"
    assert data.names[:2] == ("test/000000", "test/000001")
    assert data.labels.tolist() == [0, 1, 1, 0]
    assert [category.name for category in data.classes] == ["cat", "dog"]
    for index in range(4):
        assert data.picture(index).tobytes() == pictures[index].tobytes()
    assert open_dataset(f"hf:{tmp_path}").content_digest == data.content_digest
