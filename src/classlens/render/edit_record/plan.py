"""Plans of edits: checked plain values, before a model runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from classlens.core.arguments import is_whole_number, shown
from classlens.errors import ClasslensError, unknown
from classlens.render.edit_record.fields import Value, edit_options
from classlens.render.edit_record.notation import text_of_edit

MOST_EDITS = 200
_KEYS = ("edits", "target", "against", "source")


@dataclass(frozen=True)
class PlannedEdit:
    """One edit: its name in the registry, and the options that are given."""

    name: str
    options: Mapping[str, Value]

    @property
    def text(self) -> str:
        """The edit in the notation of the command line."""
        return text_of_edit(self.name, self.options)

    def takes(self, kind: str, value: str | None = None) -> bool:
        """Whether the edit has an option of a kind, given with this value where there is one."""
        options = [option for option in edit_options(self.name).values() if option.kind == kind]
        return any(value is None or self.options.get(option.name) == value for option in options)


@dataclass(frozen=True)
class EditPlan:
    """Edits of a pass, the class of interest, and the photo that patches come from.

    Args:
        edits: the edits, in the order in which they act.
        target: index of the class of interest; None for the class that the model predicts without edits.
        against: index of a class that it is compared with, if any.
        source: the photo of patches: the index of a photo of the store, or the name of a dropped photo; None without.
    """

    edits: tuple[PlannedEdit, ...]
    target: int | None = None
    against: int | None = None
    source: int | str | None = None

    @property
    def key(self) -> str:
        """A text that two plans share only if they are the same."""
        edits = ";".join(edit.text for edit in self.edits)
        return f"{edits}|{self.target}|{self.against}|{self.source!r}"

    @property
    def patches(self) -> bool:
        """Whether an edit puts in activations of another photo."""
        return any(edit.takes("source") for edit in self.edits)

    @property
    def means(self) -> bool:
        """Whether an edit puts in means of a data set."""
        return any(edit.takes("replacement", "means") for edit in self.edits)


def read_plan(text: str | bytes) -> EditPlan:
    """The plan of a JSON text; raises ClasslensError for anything else, keys given twice and NaN included."""
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ClasslensError):
            raise
        raise ClasslensError('the edits are no JSON: give {"edits": [{"edit": "NoCls"}]}') from None
    return plan_of(value)


def plan_of(value: object) -> EditPlan:
    """The plan of plain values; raises ClasslensError for what is no plan.

    Args:
        value: ``{"edits": [{"edit": NAME, OPTION: VALUE, …}, …], "target": INDEX, "against": INDEX, "source": …}``;
            names of edits and options are those of ``Lens.edit``. Blocks, heads, units and tokens are lists of
            indices, or ``"all"``; ``mask`` lists the tokens to keep; ``to`` is ``"zero"`` or ``"means"``. ``source`` is
            ``{"photo": INDEX}``, a photo of the store, or ``{"dropped": NAME}``.

    Examples:
        >>> plan_of({"edits": [{"edit": "AblateHeads", "heads": [3], "blocks": [4]}]}).edits[0].text
        'AblateHeads:heads=3:blocks=4'
    """
    given = _mapping(value, "the edits", _KEYS)
    edits = given.get("edits", [])
    if not isinstance(edits, list | tuple):
        raise ClasslensError(f"edits {shown(edits)} cannot be used: give a list of edits")
    if len(edits) > MOST_EDITS:
        raise ClasslensError(f"{len(edits)} edits were given: give at most {MOST_EDITS}")
    plan = EditPlan(
        tuple(map(planned_edit, edits)),
        _class(given.get("target"), "target"),
        _class(given.get("against"), "against"),
        _source(given.get("source")),
    )
    if plan.target is not None and plan.target == plan.against:
        raise ClasslensError(f"target and against are both class {plan.target}: give another class")
    if plan.patches and plan.source is None:
        raise ClasslensError('a patch needs the photo that it comes from: give a source, such as {"photo": 3}')
    if plan.source is not None and not plan.patches:
        raise ClasslensError("a source was given, but no edit is a patch: leave it out")
    return plan


def planned_edit(value: object) -> PlannedEdit:
    """One edit of plain values; raises ClasslensError for an unknown edit, or options that it does not take."""
    given = _mapping(value, "an edit", None)
    name = given.get("edit")
    if not isinstance(name, str):
        raise ClasslensError(f"edit {shown(name)} has no name: give one such as 'AblateHeads' as \"edit\"")
    known = edit_options(name[:60])
    options = [key for key, each in known.items() if each.kind != "source"]
    for key in given:
        if key != "edit" and key not in options:
            raise unknown(f"option of edit {name}", key[:60], options)
    # An option without a value is one that is not given.
    values = {key: each.value(given[key], name) for key, each in known.items() if given.get(key) is not None}
    for key, each in known.items():
        if each.required and each.kind != "source" and key not in values:
            raise ClasslensError(f"edit {name} needs {key}: give it")
    return PlannedEdit(name, values)


def _mapping(value: object, what: str, keys: Sequence[str] | None) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ClasslensError(f"{what} {shown(value)} cannot be used: give an object with names")
    for key in value:
        if keys is not None and key not in keys:
            raise unknown("key", key[:60], keys)
    return value


def _class(value: object, name: str) -> int | None:
    if value is None or (is_whole_number(value) and value >= 0):  # type: ignore[operator]
        return value  # type: ignore[return-value]
    raise ClasslensError(f"{name} {shown(value)} cannot be used: give the index of a class, or null")


def _source(value: object) -> int | str | None:
    if value is None:
        return None
    given = _mapping(value, "source", ("photo", "dropped"))
    photo, dropped = given.get("photo"), given.get("dropped")
    if dropped is None and is_whole_number(photo) and photo >= 0:  # type: ignore[operator]
        return photo
    if photo is None and isinstance(dropped, str) and 0 < len(dropped) <= 200:
        return dropped
    raise ClasslensError(f'source {shown(value)} cannot be used: give {{"photo": INDEX}} or {{"dropped": NAME}}')


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ClasslensError(f"key {key[:60]!r} was given twice: leave one out")
        result[key] = value
    return result


def _refuse_constant(text: str) -> NoReturn:
    raise ClasslensError(f"number {text} cannot be used: give finite numbers")
