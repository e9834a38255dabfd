"""What a user says a zero-shot classifier's classes are: names and templates, or whole prompts, as lists or files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from classlens.errors import ClasslensError

Template = str | Callable[[str], str]

TEMPLATES: tuple[Template, ...] = ("a photo of a {}.",)


def texts_of(
    model: str, class_names: Sequence[str] | None, prompts: Any, templates: Any, *, count: int | None
) -> tuple[list[str], list[Template]]:
    """What stands for each class, and the templates that it goes into; ``count`` is how many classes were asked for.

    >>> texts_of("m", ["cat", "dog"], None, ["a {}", "one {}"], count=None)
    (['cat', 'dog'], ['a {}', 'one {}'])
    >>> texts_of("m", None, ["a cat asleep", "a dog"], None, count=2)
    (['a cat asleep', 'a dog'], ['{}'])

    Raises ClasslensError where no classes, or both prompts and templates are given, or the numbers do not fit.
    """
    if prompts is None and class_names is None:
        raise ClasslensError(
            f"model {model!r} has no classes of its own: give class_names=[...], with templates=[...] where "
            f"{TEMPLATES[0]!r} does not do, or prompts=[...]"
        )
    if prompts is not None and templates is not None:
        raise ClasslensError(f"model {model!r} was given prompts and templates: give templates with class_names alone")
    names = None if class_names is None else listed(class_names, "class_names")
    texts = names if prompts is None else listed(prompts, "prompts")
    assert texts is not None
    for given, number in (("num_classes", count), ("the number of class_names", None if names is None else len(names))):
        if number not in (None, len(texts)):
            raise ClasslensError(f"{given} is {number}, but {len(texts)} classes were described: give one for each")
    if prompts is not None:
        return texts, ["{}"]
    return texts, listed(TEMPLATES if templates is None else templates, "templates")


def listed(given: Any, what: str) -> list[Any]:
    """The entries of a list, or the lines of a file of prompts or templates; raises ClasslensError for others."""
    entries = _lines(given, what) if isinstance(given, str | Path) and what != "class_names" else given
    if isinstance(entries, str) or not isinstance(entries, Iterable):
        raise ClasslensError(f"{what} are {given!r}: expected a list of strings; put it in a list")
    found = list(entries)
    if not found:
        raise ClasslensError(f"{what} are empty: give at least one")
    for entry in found:
        if not (isinstance(entry, str) and entry.strip()) and not (what == "templates" and callable(entry)):
            raise ClasslensError(f"{what} hold {entry!r}: expected a list of strings that say something")
    return found


def filling(template: Template) -> Callable[[str], str]:
    """A template as a function of the class name.

    >>> filling("a photo of a {}.")("cat")
    'a photo of a cat.'
    """
    if not isinstance(template, str):
        return template
    if "{}" not in template:
        raise ClasslensError(f"template {template!r} has no {{}} where the class name goes: put one there")
    return partial(template.replace, "{}")


def _lines(path: str | Path, what: str) -> list[str]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or no path at all
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ClasslensError(
            f"file of {what} {str(path)!r} cannot be read ({reason}): give a list, or a text file with one a line"
        ) from None
    return [line.strip() for line in text.splitlines() if line.strip()]
