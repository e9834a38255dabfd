"""Class names: where they come from, and how a user's word becomes an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import classlens
from classlens.errors import ClasslensError
from classlens.models.classes import Classes, make_classes, ordered_names, read_class_names

# Like ImageNet's: synonyms between commas, one word for two classes (crane the bird, crane the machine).
BIRDS = Classes(("tench, Tinca tinca", "crane", "tabby, tabby cat", "crane, hoist", "Egyptian cat", "7"))


def refused(name: int | str, classes: Classes = BIRDS) -> str:
    with pytest.raises(ClasslensError) as caught:
        classes.index(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("word", "index"),
    [
        (0, 0),
        (5, 5),
        ("0", 0),
        (" 4 ", 4),
        ("tench", 0),
        ("Tinca tinca", 0),
        ("tench, tinca TINCA", 0),
        ("tabby cat", 2),
        ("EGYPTIAN CAT", 4),
        ("hoist", 3),
        # A whole name goes before a synonym of another class.
        ("crane", 1),
        ("crane, hoist", 3),
        # A class that is named by a number goes before the class of that number.
        ("7", 5),
    ],
)
def test_a_word_for_a_class(word: int | str, index: int) -> None:
    found = BIRDS.index(word)
    assert found == index
    assert type(found) is int


def test_near_names_are_spelled_as_the_model_spells_them() -> None:
    cats = Classes(("Bengal", "Maine Coon, Coon cat", "siamese"))
    assert cats.index("bengal") == cats.index("BENGAL") == 0
    assert "did you mean 'Bengal'?" in refused("Bengall", cats)
    assert "did you mean 'Coon cat'" in refused("coon-cat", cats)


@pytest.mark.parametrize("index", [-1, 6, 1000])
def test_an_index_that_is_none(index: int) -> None:
    message = refused(index)
    assert str(index) in message
    assert "0 to 5" in message


def test_an_index_as_text_that_is_none() -> None:
    assert "0 to 5" in refused("6")
    assert "'-1'" in refused("-1")


def test_a_name_that_is_none_suggests_near_ones() -> None:
    message = refused("tabby catt")
    assert "'tabby catt'" in message
    assert "did you mean 'tabby cat'" in message
    # The same sentence stands on the command line, where nobody holds a lens.
    message = refused("zzzzzzzz")
    assert "give an index from 0 to 5, or a name such as 'tench, Tinca tinca', 'crane'" in message
    assert "lens." not in message


def test_a_name_of_several_classes_needs_the_index() -> None:
    both = Classes(("maillot", "cat", "maillot"))
    message = refused("maillot", both)
    assert "0, 2" in message
    assert "index" in message
    shared = Classes(("crane, bird", "crane, hoist"))
    assert "0, 1" in refused("crane", shared)


def test_length_and_order() -> None:
    assert len(BIRDS) == 6
    assert BIRDS.names[3] == "crane, hoist"


def test_names_as_given_or_numbered() -> None:
    assert make_classes(2, ["ant", "bee"]).names == ("ant", "bee")
    assert make_classes(3, None).names == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize("names", [[], ["ant"], ["ant", "bee", "cow"]])
def test_another_number_of_names(names: list[str]) -> None:
    with pytest.raises(ClasslensError, match=f"{len(names)} class names were given for a model of 2 classes"):
        make_classes(2, names)


# Files


def test_a_name_a_line(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("ant\n  bee \n\nGottesanbeterin, größte\nemu\n", encoding="utf-8")
    assert read_class_names(file) == ["ant", "bee", "Gottesanbeterin, größte", "emu"]
    assert read_class_names(str(file)) == read_class_names(file)


def test_what_editors_of_other_systems_write(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes(b"\xef\xbb\xbfant\r\nbee\r\n")
    assert read_class_names(file) == ["ant", "bee"]
    (tmp_path / "names.json").write_bytes(b'\xef\xbb\xbf["ant", "bee"]')
    assert read_class_names(tmp_path / "names.json") == ["ant", "bee"]


@pytest.mark.parametrize("ending", ["json", "JSON"])
def test_json(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"names.{ending}"
    names = [f"name {index}" for index in range(12)]
    file.write_text(json.dumps(names))
    assert read_class_names(file) == names
    # Keys in any order; 10 comes after 9, not after 1.
    file.write_text(json.dumps({str(index): names[index] for index in (11, 3, 10, 0, 2, 1, 9, 8, 7, 6, 5, 4)}))
    assert read_class_names(file) == names


@pytest.mark.parametrize(
    "content",
    [
        "",
        "ant\nbee",
        "3",
        '"ant"',
        "[1, 2]",
        '["ant", null]',
        '{"ant": 0, "bee": 1}',
        '{"0": "ant", "2": "cow"}',  # a gap would shift every name after it
        '{"1": "ant", "2": "bee"}',  # so would counting from 1
        '{"0": ["n01440764", "tench"]}',
    ],
)
def test_json_of_another_kind(content: str, tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_text(content)
    with pytest.raises(ClasslensError, match="JSON list of names") as caught:
        read_class_names(file)
    assert repr(str(file)) in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("kind", ["missing", "folder", "binary"])
def test_a_file_that_cannot_be_read(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    if kind == "folder":
        file.mkdir()
    elif kind == "binary":
        file.write_bytes(bytes(range(256)))
    with pytest.raises(ClasslensError, match="cannot be read") as caught:
        read_class_names(file)
    assert repr(str(file)) in str(caught.value)
    assert caught.value.__suppress_context__


NAMES = ["ant", "bee", "cow"]


@pytest.mark.parametrize(
    "names",
    [{2: "cow", 0: "ant", 1: "bee"}, {"1": "bee", "2": "cow", "0": "ant"}, tuple(NAMES)],
    ids=["dict", "dict of text", "tuple"],
)
def test_names_have_the_order_of_the_rows(names: Any) -> None:
    assert list(ordered_names(names)) == NAMES


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"ant", "bee"}, "a set, which has no order: give a list"),
        ({"ant": 0, "bee": 1}, "a dict with the keys 'ant', 'bee'"),
        ({0: "ant", 2: "cow"}, "a dict with the keys 0, 2"),
        ({1: "ant", 2: "bee"}, "a dict with the keys 1, 2"),
        ({0: "ant", "0": "bee"}, "a dict with the keys 0, '0'"),
        ((name for name in NAMES), "a generator, which has no order"),
    ],
)
@pytest.mark.wrong_types
def test_names_without_an_order_are_refused(names: Any, message: str) -> None:
    with pytest.raises(ClasslensError, match=message):
        ordered_names(names)
    with pytest.raises(ClasslensError, match="class_names .* cannot be used|" + message):
        classlens.load(timm.create_model("test_vit", num_classes=2), class_names=names)


def timm_model(**config: Any) -> Any:
    model: Any = timm.create_model("test_vit", num_classes=3)
    model.pretrained_cfg = {**model.pretrained_cfg, **config}
    return model


@pytest.mark.parametrize("labels", [NAMES, {"2": "cow", "0": "ant", "1": "bee"}])
def test_the_record_of_a_timm_model(labels: Any) -> None:
    assert classlens.load(timm_model(label_names=labels)).classes.names == tuple(NAMES)
    described = timm_model(label_names=labels, label_descriptions={name: name.upper() for name in NAMES})
    assert classlens.load(described).classes.names == ("ANT", "BEE", "COW")
    assert classlens.load(timm_model(label_names=NAMES[:2])).classes.names[0] == "class 0"


def test_a_checkpoint_of_1000_classes_is_not_imagenet(tmp_path: Path) -> None:
    """Nothing in it says so; random weights of the same names keep ImageNet's."""
    torch.save(timm.create_model("test_vit", num_classes=1000).state_dict(), tmp_path / "mine.pt")
    own = classlens.load("test_vit.r160_in1k", checkpoint=tmp_path / "mine.pt")
    assert own.classes.names[0] == "class 0"
    assert classlens.load("test_vit.r160_in1k", pretrained=False).classes.names[0] == "tench, Tinca tinca"
