"""What a zero-shot classifier's classes are: names with templates, or whole prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from classlens.errors import ClasslensError
from classlens.models.prompts import TEMPLATES, class_texts, read_list, template_function


def texts(*arguments: Any, num_classes: int | None = None) -> Any:
    return class_texts(*arguments, num_classes=num_classes)


def test_names_go_into_templates() -> None:
    assert texts("m", ["cat", "dog"], None, None) == (["cat", "dog"], list(TEMPLATES))
    assert texts("m", ["cat"], None, ["a {}", "my {}"], num_classes=1) == (["cat"], ["a {}", "my {}"])


def test_prompts_are_taken_as_they_are() -> None:
    prompts, (template,) = texts("m", None, ("a cat {asleep}", "a dog"), None)
    assert [template_function(template)(text) for text in prompts] == ["a cat {asleep}", "a dog"]
    assert texts("m", ["cat", "dog"], ["a cat", "a dog"], None, num_classes=2)[0] == ["a cat", "a dog"]


def test_files_have_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffa cät\r\n\n  a dog \n".encode())
    assert read_list(file, "prompts") == ["a cät", "a dog"]
    assert read_list(str(file), "templates") == ["a cät", "a dog"]


def test_templates_are_strings_or_functions() -> None:
    assert template_function("a {} and {0} {x} of a {}.")("cat") == "a cat and {0} {x} of a cat."
    assert template_function(str.upper)("cat") == "CAT"


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (
            lambda: texts("m", None, None, None),
            "'m' has no classes of its own: give class_names=[...]",
        ),
        (lambda: texts("m", None, ["a"], ["a {}"]), "prompts and templates"),
        (
            lambda: texts("m", ["a"], ["a", "b"], None),
            "number of class_names is 1, but 2 classes",
        ),
        (lambda: texts("m", ["a"], None, None, num_classes=3), "num_classes is 3, but 1 classes"),
        (lambda: texts("m", "names.txt", None, None), "class_names are 'names.txt'"),
        (lambda: read_list([], "prompts"), "prompts are empty"),
        (lambda: read_list(["a", " "], "prompts"), "prompts hold ' '"),
        (lambda: read_list(["a", 3], "class_names"), "class_names hold 3"),
        (lambda: read_list([str.upper], "prompts"), "prompts hold"),
        (lambda: read_list(3, "templates"), "templates are 3"),
        (lambda: read_list("no such file", "templates"), "file of templates 'no such file' cannot be read"),
        (lambda: template_function("a photo"), "template 'a photo' has no {}"),
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
            read_list(file, "prompts")
