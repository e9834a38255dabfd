"""What a zero-shot classifier's classes are: names with templates, or whole prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from classlens.errors import ClasslensError
from classlens.models.prompts import TEMPLATES, filling, listed, texts_of


def test_names_go_into_templates() -> None:
    assert texts_of("m", ["cat", "dog"], None, None, count=None) == (["cat", "dog"], list(TEMPLATES))
    assert texts_of("m", ["cat"], None, ["a {}", "my {}"], count=1) == (["cat"], ["a {}", "my {}"])


def test_prompts_are_taken_as_they_are() -> None:
    texts, (template,) = texts_of("m", None, ("a cat {asleep}", "a dog"), None, count=None)
    assert [filling(template)(text) for text in texts] == ["a cat {asleep}", "a dog"]
    assert texts_of("m", ["cat", "dog"], ["a cat", "a dog"], None, count=2)[0] == ["a cat", "a dog"]


def test_files_have_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffa cät\r\n\n  a dog \n".encode())
    assert listed(file, "prompts") == ["a cät", "a dog"]
    assert listed(str(file), "templates") == ["a cät", "a dog"]


def test_templates_are_strings_or_functions() -> None:
    assert filling("a {} and {0} {x} of a {}.")("cat") == "a cat and {0} {x} of a cat."
    assert filling(str.upper)("cat") == "CAT"


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: texts_of("m", None, None, None, count=None), "'m' has no classes of its own: give class_names=[...]"),
        (lambda: texts_of("m", None, ["a"], ["a {}"], count=None), "prompts and templates"),
        (lambda: texts_of("m", ["a"], ["a", "b"], None, count=None), "number of class_names is 1, but 2 classes"),
        (lambda: texts_of("m", ["a"], None, None, count=3), "num_classes is 3, but 1 classes"),
        (lambda: texts_of("m", "names.txt", None, None, count=None), "class_names are 'names.txt'"),
        (lambda: listed([], "prompts"), "prompts are empty"),
        (lambda: listed(["a", " "], "prompts"), "prompts hold ' '"),
        (lambda: listed(["a", 3], "class_names"), "class_names hold 3"),
        (lambda: listed([str.upper], "prompts"), "prompts hold"),
        (lambda: listed(3, "templates"), "templates are 3"),
        (lambda: listed("no such file", "templates"), "file of templates 'no such file' cannot be read"),
        (lambda: filling("a photo"), "template 'a photo' has no {}"),
    ],
)
def test_what_is_refused(call: Callable[[], Any], part: str) -> None:
    with pytest.raises(ClasslensError) as caught:
        call()
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ". " not in str(caught.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe\xff")
    for file in (tmp_path / "x", tmp_path):
        with pytest.raises(ClasslensError, match="file of prompts"):
            listed(file, "prompts")
