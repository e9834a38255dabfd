"""Schema of a group: the arrays of one metric of one importance, as they are written and in which form alone read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from classlens.core.arrays import Array
from classlens.errors import ClasslensError
from classlens.store.schema import Schema, Variable
from classlens.tasks.evaluation.image_batch import EvaluationSettings
from classlens.tasks.evaluation.metric import Metric, MetricAxes
from classlens.tasks.tokens.schema import check_values

_LABEL = Variable(("image",), np.dtype("int32"), -1, "class of the data set; -1 for an image without a label")
_FLAG = np.dtype("int8")


def group_schema(metric: Metric, axes: MetricAxes, names: Array, attrs: Mapping[str, Any] | None = None) -> Schema:
    """The schema of a metric for images with these names; its attributes hold what coordinates depend on."""
    coords = metric.coords(axes)
    return Schema(
        {"image": len(names), **{dim: len(values) for dim, values in coords.items()}},
        {"label": _LABEL, **metric.variables},
        frozenset(coords),
        {"image": ("image", names), **{dim: (dim, values) for dim, values in coords.items()}},
        {"grid": list(axes.grid), "blocks": axes.blocks, "drawn": axes.drawn, **(attrs or {})},
    )


def require_group(store: str, group: str, data: xr.Dataset, metric: Metric) -> None:
    """Raises ClasslensError for a group with other arrays than `evaluate` writes for the metric.

    ``data`` has the attributes of the store.
    """
    attrs = data.attrs
    try:
        settings = EvaluationSettings(attrs["steps"], attrs["permutations"], attrs["seed"])
        axes = MetricAxes(tuple(attrs["grid"]), attrs["blocks"], bool(attrs["drawn"]), settings)
        classes, _, _ = attrs["num_classes"], attrs["mosaics"], attrs["model"]
    except KeyError as error:
        raise _other_form(store, group, f"it lacks {error.args[0]!r}") from None
    arrays = {name: (array.dims, array.shape, array.dtype) for name, array in data.variables.items()}
    if arrays.get("image", ((),))[0] != ("image",):
        raise _other_form(store, group, "'image' is missing or of another form")
    schema = group_schema(metric, axes, data["image"].values)
    status = Variable(("image",), np.dtype("uint8"), 0, "")
    for name, variable in {**schema.variables, "measured": status}.items():
        if arrays.get(name) != (variable.dims, schema.shape(variable.dims), variable.dtype):
            raise _other_form(store, group, f"{name!r} is missing or of another form")
    for name, (dim, values) in schema.coords.items():
        if arrays.get(name, ((),))[0] != (dim,) or not np.array_equal(data[name].values, values):
            raise _other_form(store, group, f"{name!r} is missing or holds other values")
    for name, variable in schema.variables.items():
        if variable.dtype == _FLAG or name == "label":
            check_values(store, name, data[name].values, classes)


def _other_form(store: str, group: str, reason: str) -> ClasslensError:
    return ClasslensError(
        f"group {group!r} of store {store!r} is not used, since {reason}: expected what `classlens evaluate` writes; "
        "evaluate into another --out"
    )
