"""Maps of every method for a class of one image, as plain numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from classlens.errors import ClasslensError
from classlens.explain.registry import METHODS, is_defined
from classlens.lens.trace import Trace
from classlens.render.class_record import significant


def method_maps(trace: Trace, target: int | None = None, against: int | None = None) -> dict[str, Any]:
    """The map of each method for the first image of a trace: ``[row][column]``, or why it has none.

    ``method_maps(lens.trace("cat.png"), 3)["methods"][0]["values"]``

    ``target`` is the prediction by default. With ``against``, each map is that of the target less that of the other
    class; a method that does not depend on the class is left as it is.
    """
    view = trace.recording.view
    category = int(trace.predictions.values[0]) if target is None else target
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
            values = trace.map(category, method=name).values[0]
            if against is not None:
                other = trace.map(against, method=name).values[0]
                same = np.array_equal(values, other)
                values = values if same else values - other
            rows.append({**row, "values": significant(values)})
        except ClasslensError as error:
            rows.append({**row, "reason": str(error)})
    return {"target": category, "against": against, "methods": rows}
