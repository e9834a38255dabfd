"""Importance of image tokens: the maps that metrics evaluate, from methods or from a store of ranks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from classlens.errors import ClasslensError, unknown
from classlens.explain.method import Method
from classlens.explain.registry import METHODS, method_of, split_method
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
    """The maps of an explanation method, summed over blocks and heads."""

    text: str
    name: str
    options: Mapping[str, int | float | str]

    live = True

    @property
    def method(self) -> Method:
        return METHODS[self.name]

    @property
    def drawn(self) -> bool:
        return self.method.drawn

    @property
    def complete(self) -> bool:
        return self.method.complete

    def maps(self, batch: ImageBatch) -> Float[Tensor, "image token"]:
        return self.explain(batch.trace, batch.target)

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

    def maps(self, batch: ImageBatch) -> Float[Tensor, "image token"]:
        assert self.values is not None, "the store is opened before the run"
        return torch.from_numpy(self.values[batch.first : batch.first + len(batch)])

    def explain(self, trace: Trace, target: Int[Tensor, " image"]) -> Float[Tensor, "image token"]:
        raise AssertionError("a store holds maps of its images only")


def parse_methods(methods: str | Collection[str]) -> tuple[MethodImportance | StoredImportance, ...]:
    """Importances from texts such as ``name:option=value:option=value``; ``"all"`` for every explanation method.

    Raises ClasslensError for an unknown method or option.
    """
    texts = [methods] if isinstance(methods, str) else list(methods)
    if texts == ["all"]:
        texts = list(METHODS)
    if not texts:
        raise ClasslensError(f"no methods were given: give some of {', '.join(METHODS)}, or all")
    # Duplicates are measured once.
    return tuple(_parse(text) for text in dict.fromkeys(texts))


def _parse(text: str) -> MethodImportance | StoredImportance:
    name, options = split_method(text)
    if name == STORED_RANK:
        return StoredImportance(text, check_stored_options(text, options))
    if name not in METHODS:
        raise unknown("method", name, [*METHODS, STORED_RANK])
    method_of(name, options)
    for option, reason in _FIXED_OPTIONS.items():
        if option in options:
            raise ClasslensError(f"method {text!r} cannot be measured with {option}: {reason}; leave it out")
    return MethodImportance(text, name, options)
