"""Groups of classes from a file or a dict: how classes are named, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from timm.data import ImageNetInfo

from classlens.models.classes import Classes
from classlens.models.label_groups import Groups, LabelGroups
from tests.refusals import refused

CLASSES = Classes(("tabby, tabby cat", "tench", "crane", "crane", "beagle", "7"))
EXPECTED = LabelGroups(("cat", "fish", "dog"), (0, 1, -1, -1, 2, -1))


@pytest.mark.parametrize(
    "text",
    [
        "tabby,cat\ntench,fish\nbeagle,dog\n",
        'class,group\n\nbeagle , dog\ntench,fish\n"tabby, tabby cat",cat',
        "Class\tGroup\nTabby cat\tcat\nTENCH\tfish\nbeagle\tdog\n\t\n",
        "tabby, tabby cat\tcat\r\ntench\tfish\r\nbeagle\tdog\r\n",
        "\ufefftabby,cat\ntench,fish\nbeagle,dog",
        "tabby_cat,cat\ntench,fish\nbeagle,dog",
        "n02123045,cat\nn01440764,fish\nn02088364,dog",
        "0,cat\n1,fish\n4,dog",
    ],
)
def test_files(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "g.csv").write_text(text, encoding="utf-8", newline="")
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (tmp_path / "g.csv", str(tmp_path / "g.csv"), "~/g.csv"):
        assert LabelGroups.of(path, CLASSES) == EXPECTED


def test_dicts() -> None:
    mixed: dict[int | str, str] = {"beagle": " dog", 0: "cat", "tench": "fish"}
    assert LabelGroups.of(mixed, CLASSES) == EXPECTED
    assert LabelGroups.of({"7": "a", "tench": "b"}, CLASSES).of_class == (-1, 0, -1, -1, -1, 1), "a name comes first"


def test_wnids_of_imagenet() -> None:
    """Also where its classes have other names, and where two have the same."""
    info = ImageNetInfo("imagenet-1k")
    given: Groups = {info.index_to_label_name(index): "odd" if index % 2 else "even" for index in range(1000)}
    for names in (info.label_descriptions(), [f"class {index}" for index in range(1000)]):
        assert LabelGroups.of(given, Classes(tuple(names))).of_class == tuple(index % 2 for index in range(1000))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["no class", "two groups or more"]),
        ("class,group\n", ["no class"]),
        ("tabby,cat\ntench,cat\n", ["the single group 'cat'"]),
        ("tabby,cat\ntensh,fish\n", ["line 2", "'tensh'", "did you mean 'tench'?"]),
        ("tabby,cat\nn00000000,fish\n", ["line 2", "'n00000000'"]),
        ("tabby,cat\n6,fish\n", ["line 2", "class 6", "0 to 5"]),
        ("tabby,cat\ncrane,bird\n", ["line 2", "several classes, indices 2, 3"]),
        ("tabby,cat\ntench,fish\ntabby cat,cat\n", ["line 3 has class 0", "a second time, after line 1"]),
        ("tabby,cat\ntabby,dog\n", ["line 2", "once"]),
        ("tabby,cat\ntench,\n", ["line 2", "'tench' has no group"]),
        ("tabby,cat\ntench\n", ["line 2 has 1 column:", "comma or tab"]),
        ("tabby, tabby cat,cat\n", ["line 1 has 3 columns:", "quotes"]),
        ('tabby,cat\n"tench,fish\n', ["line 2 is not understood"]),
        ("1,a\n7,b\n", ["'7' is the name of a class and '1' is not"]),
        (b"\xff\xfe", ["not UTF-8"]),
    ],
)
def test_refused_files(text: str | bytes, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "g.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(lambda: LabelGroups.of(path, CLASSES), f"label groups file {str(path)!r}", *parts)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("missing.csv", "No such file"),
        ("", "''"),
        (".", "directory"),
        ({}, "no class"),
        ({"tabby": "a", 0: "b"}, "second time: give"),
        ({"tabby": "a", "tench": " "}, "no group"),
        ({2.5: "a"}, "2.5"),
        ({"tabby": "a", -1: "b"}, "-1"),
    ],
)
def test_other_refusals(given: Any, part: str) -> None:
    refused(lambda: LabelGroups.of(given, CLASSES), "groups", part)
