"""Lists of image paths, with and without classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from classlens.data.open_dataset import open_dataset
from tests.refusals import refused


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number, name in enumerate(("a.png", "b.png", "in/c d.png"), start=1):
        Image.new("RGB", (number, 1)).save(tmp_path / name)
    return tmp_path


def listed(root: Path, text: str, name: str = "images.txt", encoding: str = "utf-8") -> str:
    (root / name).write_text(text, encoding=encoding)
    return f"list:{root / name}"


def test_paths_without_classes(root: Path) -> None:
    data = open_dataset(listed(root, "# mine\nin/c d.png\n\n  a.png  \n"))
    assert data.names == ("in/c d.png", "a.png")  # in the order of the file
    assert data.labels.tolist() == [-1, -1]
    assert data.classes == ()
    assert [data.picture(index).size for index in range(2)] == [(3, 1), (1, 1)]
    assert not data.has_masks


def test_paths_from_anywhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(root, f"{root / 'b.png'}\nin/../a.png\n")
    monkeypatch.chdir(root.parent)
    data = open_dataset(f"list:{root.name}/images.txt")
    assert [data.picture(index).size for index in range(2)] == [(2, 1), (1, 1)]


def test_paths_with_classes(root: Path) -> None:
    data = open_dataset(listed(root, "a.png\tzebra\nb.png\tant, big\nin/c d.png\tzebra\n"))
    assert [category.name for category in data.classes] == ["ant, big", "zebra"]
    assert data.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.png,zebra\nin/c d.png,ant\n",
        'label,path,more\nzebra,"a.png",1\nant, in/c d.png ,2\n',
        "path, label\na.png, zebra\nin/c d.png, ant\n",  # spaces after commas
        "path,label\r\na.png,zebra\r\n\r\n ,\r\nin/c d.png,ant\r\n",
        "Path,Label\na.png,zebra\nin/c d.png,ant\n",
        "path,more, class \na.png,1,zebra\nin/c d.png,2,ant\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table(text: str, encoding: str, root: Path) -> None:
    data = open_dataset(listed(root, text, "images.CSV", encoding))
    assert data.names == ("a.png", "in/c d.png")
    assert [data.classes[label].name for label in data.labels] == ["zebra", "ant"]


def test_a_table_without_classes(root: Path) -> None:
    data = open_dataset(listed(root, "path\na.png\n", "images.csv"))
    assert data.names == ("a.png",)
    assert data.labels.tolist() == [-1]
    refused(lambda: open_dataset(listed(root, "file\na.png\n", "images.csv")), "images.csv", "no column 'path'")


def test_labels_are_never_passed_over(root: Path) -> None:
    """Without them the predicted class would be measured."""
    refused(
        lambda: open_dataset(listed(root, "path,animal\na.png,ant\n", "images.csv")),
        "the columns animal",
        "--label-column",
    )
    refused(
        lambda: open_dataset(listed(root, "path,label,class\na.png,ant,x\n", "images.csv")), "several", "label, class"
    )


def test_the_column_of_labels(root: Path) -> None:
    spec = listed(root, "path,animal,Label\na.png,ant,1\nb.png,bee,2\n", "images.csv")
    assert [category.name for category in open_dataset(spec).classes] == ["1", "2"]
    assert [category.name for category in open_dataset(spec, label_column="animal").classes] == ["ant", "bee"]
    assert open_dataset(spec, label_column="none").labels.tolist() == [-1, -1]
    refused(lambda: open_dataset(spec, label_column="animals"), "mean 'animal'", "animal, Label")
    refused(lambda: open_dataset(listed(root, "a.png\n"), label_column="animal"), "no columns")
    refused(lambda: open_dataset(f"folder:{root}", label_column="animal"), "no columns")


def test_a_repeated_image(root: Path) -> None:
    refused(
        lambda: open_dataset(listed(root, "a.png\n\nb.png\na.png\n")), "images.txt", "'a.png'", "line 1", "in line 4"
    )
    refused(lambda: open_dataset(listed(root, "path\na.png\na.png\n", "images.csv")), "line 2", "in line 3")


@pytest.mark.parametrize("text", ["a.png\tant\nb.png\n", "a.png\nb.png\tant\n"])
def test_classes_in_a_few_lines_only(text: str, root: Path) -> None:
    refused(lambda: open_dataset(listed(root, text)), "images.txt", "line 2")


def test_a_class_without_a_path(root: Path) -> None:
    refused(lambda: open_dataset(listed(root, "a.png\tant\n\tant\n")), "images.txt", "line 2")


def test_a_list_has_no_splits(root: Path) -> None:
    spec = listed(root, "a.png\n")
    refused(lambda: open_dataset(spec, split="test"), repr(spec), "'test'")


@pytest.mark.parametrize("state", ["missing", "folder", "binary"])
def test_a_list_that_cannot_be_read(state: str, root: Path) -> None:
    file = root / "images.txt"
    if state == "folder":
        file.mkdir()
    elif state == "binary":
        file.write_bytes(bytes(range(256)))
    refused(lambda: open_dataset(f"list:{file}"), repr(f"list:{file}"), "cannot be read")


def test_an_empty_list(root: Path) -> None:
    for text in ("", "# nothing\n", "\n"):
        refused(lambda text=text: open_dataset(listed(root, text)), "images.txt", "no images")  # type: ignore[misc]


def test_a_missing_image(root: Path) -> None:
    data = open_dataset(listed(root, "gone.png\n"))
    refused(lambda: data.picture(0), "gone.png", "does not exist")
