"""Maps of every method for a class of one image, as plain numbers."""

from __future__ import annotations

from typing import Any

from classlens.errors import ClasslensError
from classlens.explain.registry import METHODS, is_defined
from classlens.lens.trace import Trace
from classlens.render.class_record import significant


def method_maps(trace: Trace, target: int | None = None, against: int | None = None) -> dict[str, Any]:
    """The map of each method for the first image of a trace: ``[row][column]``, or why it has none.

    ``method_maps(lens.trace("cat.png"), 3)["methods"][0]["values"]``

    ``target`` is the prediction by default. ``against``: another class; methods that depend on the class say why it is
    the target rather than this one, as ``Trace.map`` does. Raises ClasslensError where both are the same class.
    """
    view = trace.recording.view
    category = int(trace.predictions.values[0]) if target is None else target
    if category == against:
        raise ClasslensError(f"class {category} is compared with itself: give another one")
    rows = []
    for name, method in METHODS.items():
        row: dict[str, Any] = {
            "name": name,
            "label": method.label,
            "about": method.about,
            "values": None,
            "reason": None,
        }
        if not is_defined(method, view):
            rows.append({**row, "reason": f"not defined for {view.name}"})
            continue
        try:
            options = {} if against is None or "against" not in method.options else {"against": against}
            rows.append({**row, "values": significant(trace.map(category, method=name, **options).values[0])})
        except ClasslensError as error:
            rows.append({**row, "reason": str(error)})
    return {"target": category, "against": against, "methods": rows}
