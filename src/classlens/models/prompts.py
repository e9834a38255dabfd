"""The classes of a zero-shot classifier: names with templates, or whole prompts, as lists or files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from classlens.errors import ClasslensError

Template = str | Callable[[str], str]

TEMPLATES: tuple[Template, ...] = ("a photo of a {}.",)


def class_texts(
    model: str, class_names: Sequence[str] | None, prompts: Any, templates: Any, *, num_classes: int | None
) -> tuple[list[str], list[Template]]:
    """One text for each class, and the templates that it is put into.

    Raises ClasslensError without classes, for prompts together with templates, and for numbers that do not match.

    Examples:
        >>> class_texts("m", ["cat", "dog"], None, ["a {}", "one {}"], num_classes=None)
        (['cat', 'dog'], ['a {}', 'one {}'])
        >>> class_texts("m", None, ["a cat asleep", "a dog"], None, num_classes=2)
        (['a cat asleep', 'a dog'], ['{}'])
    """
    if prompts is None and class_names is None:
        raise ClasslensError(
            f"model {model!r} has no classes of its own: give class_names=[...], with templates=[...] in place of "
            f"{TEMPLATES[0]!r}, or prompts=[...]"
        )
    if prompts is not None and templates is not None:
        raise ClasslensError(f"model {model!r} was given prompts and templates: give templates with class_names alone")
    names = None if class_names is None else read_list(class_names, "class_names")
    texts = names if prompts is None else read_list(prompts, "prompts")
    assert texts is not None
    counts = {"num_classes": num_classes, "the number of class_names": None if names is None else len(names)}
    for label, count in counts.items():
        if count not in (None, len(texts)):
            raise ClasslensError(f"{label} is {count}, but {len(texts)} classes were described: give one for each")
    if prompts is not None:
        return texts, ["{}"]
    return texts, read_list(TEMPLATES if templates is None else templates, "templates")


def read_list(value: Any, label: str) -> list[Any]:
    """The entries of a list, or the lines of a file of prompts or templates; raises ClasslensError for others."""
    entries = _lines(value, label) if isinstance(value, str | Path) and label != "class_names" else value
    if isinstance(entries, str) or not isinstance(entries, Iterable):
        raise ClasslensError(f"{label} are {value!r}: expected a list of strings; put it in a list")
    entries = list(entries)
    if not entries:
        raise ClasslensError(f"{label} are empty: give at least one")
    for entry in entries:
        if not (isinstance(entry, str) and entry.strip()) and not (label == "templates" and callable(entry)):
            raise ClasslensError(f"{label} hold {entry!r}: expected a list of strings that are not empty")
    return entries


def template_function(template: Template) -> Callable[[str], str]:
    """A template as a function of the class name.

    Examples:
        >>> template_function("a photo of a {}.")("cat")
        'a photo of a cat.'
    """
    if not isinstance(template, str):
        return template
    if "{}" not in template:
        raise ClasslensError(f"template {template!r} has no {{}} for the class name: put one into it")
    return partial(template.replace, "{}")


def _lines(path: str | Path, label: str) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or not a path
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ClasslensError(
            f"file of {label} {str(path)!r} cannot be read ({reason}): give a list, or a text file with one a line"
        ) from None
    return [line.strip() for line in text.splitlines() if line.strip()]
