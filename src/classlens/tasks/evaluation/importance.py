"""Importance of image tokens: the maps that metrics evaluate, from methods or functions, or from a store of ranks."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from classlens.core.pixel_maps import cell_means
from classlens.errors import ClasslensError, unknown
from classlens.explain.custom import SIGNS, MapMethod
from classlens.explain.method import Method, MethodLike
from classlens.explain.registry import METHODS, find_method, method_of, short_name, split_method
from classlens.lens.trace import Trace
from classlens.tasks.evaluation.image_batch import ImageBatch
from classlens.tasks.evaluation.stored_ranks import STORED_RANK, check_stored_options

# Options that an evaluation sets, and why.
_FIXED_OPTIONS = {
    "against": "an image is explained for its class alone",
    "query": "an image is explained for its class alone",
    "seed": "seeds are those of the whole run",
}


@dataclass(frozen=True)
class MethodImportance:
    """The maps of an explanation method, summed over blocks and heads, or of a function of another tool."""

    text: str
    name: MethodLike
    options: Mapping[str, int | float | str]
    digest: str | None = None
    """Digest of the code of a function; every process runs this code and no other."""

    live = True

    @property
    def method(self) -> Method:
        method = find_method(self.name)
        if self.digest is not None and isinstance(method, MapMethod) and method.digest != self.digest:
            raise ClasslensError(
                f"the file of method {self.text!r} has changed during the run: start again with another --out"
            )
        return method

    @property
    def drawn(self) -> bool:
        return self.method.drawn

    @property
    def complete(self) -> bool:
        return self.method.complete

    def maps(self, batch: ImageBatch) -> Float[Tensor, "image token"]:
        native = batch.native_maps(self)
        if native is None:
            return self.explain(batch.trace, batch.target)
        return cell_means(torch.stack(list(native)), batch.grid)

    def native_maps(self, batch: ImageBatch) -> Sequence[Float[Tensor, "row column"]] | None:
        method = self.method
        if not isinstance(method, MapMethod):
            return None
        return list(method.native(batch.trace.recording, batch.target, **self.options))

    def explain(self, trace: Trace, target: Int[Tensor, " image"]) -> Float[Tensor, "image token"]:
        """Raises ClasslensError for values that are not finite, which have no order."""
        importance = trace.explain(target, method=self.name, **self.options)
        values = importance.sum([dim for dim in importance.dims if dim in ("block", "head")], skipna=False).values
        if not np.isfinite(values).all():
            raise ClasslensError(
                f"method {self.text!r} gives values that are not finite: measure in float32, or leave the method out"
            )
        return torch.from_numpy(values)


@dataclass(frozen=True, eq=False)
class StoredImportance:
    """Ranks of a store as importance: by probes, a tuned lens, or the class embedding."""

    text: str
    options: Mapping[str, int | float | str]
    values: Float[ndarray, "image token"] | None = None
    """Values of all images of the data set; None until the store is opened."""

    drawn, live, complete = False, False, False

    @property
    def digest(self) -> str | None:
        return None if self.values is None else hashlib.sha256(self.values.tobytes()).hexdigest()

    def native_maps(self, batch: ImageBatch) -> None:
        return None

    def maps(self, batch: ImageBatch) -> Float[Tensor, "image token"]:
        assert self.values is not None, "the store is opened before the run"
        return torch.from_numpy(self.values[batch.first : batch.first + len(batch)])

    def explain(self, trace: Trace, target: Int[Tensor, " image"]) -> Float[Tensor, "image token"]:
        raise AssertionError("a store holds maps of its images only")


def parse_methods(
    methods: MethodLike | Collection[MethodLike],
) -> tuple[MethodImportance | StoredImportance, ...]:
    """Importances from texts as ``name:option=value``, from functions, and from ``file.py:function:sign=absolute``.

    ``"all"`` stands for every explanation method. Raises ClasslensError for an unknown method or option, and for two
    methods of one name.
    """
    given = [methods] if isinstance(methods, str) or callable(methods) else list(methods)
    if given == ["all"]:
        given = list(METHODS)
    if not given:
        raise ClasslensError(f"no methods were given: give some of {', '.join(METHODS)}, or all")
    # Duplicates are measured once.
    importances = tuple(_parse(method) for method in dict.fromkeys(given))
    texts = [importance.text for importance in importances]
    for text in texts:
        if texts.count(text) > 1:
            raise ClasslensError(f"two methods are named {text!r}, as results name them: rename one of the functions")
    return importances


def _parse(given: MethodLike) -> MethodImportance | StoredImportance:
    if not isinstance(given, str):
        return MethodImportance(short_name(given), given, {}, _digest(given))
    name, options = split_method(given)
    if name == STORED_RANK:
        return StoredImportance(given, check_stored_options(given, options))
    text = short_name(given)
    if text == given and name not in METHODS:
        raise unknown("method", name, [*METHODS, STORED_RANK])
    method = method_of(name, options)
    if isinstance(method, MapMethod) and options.get("sign", "signed") not in SIGNS:
        raise unknown("sign", options["sign"], SIGNS)
    for option, reason in _FIXED_OPTIONS.items():
        if option in options:
            raise ClasslensError(f"method {text!r} cannot be measured with {option}: {reason}; leave it out")
    return MethodImportance(text, name, options, _digest(name))


def _digest(name: MethodLike) -> str | None:
    """Digest of the code of a function; None for a method of classlens."""
    method = find_method(name)
    return method.digest if isinstance(method, MapMethod) else None
