"""Which explanations are measured: methods with their options, written as on the command line."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from classlens.errors import ClasslensError
from classlens.explain.method import Method
from classlens.explain.registry import METHODS, method_of, split_method
from classlens.lens.trace import Trace
from classlens.tasks.evaluation import stored_ranks as stored


@dataclass(frozen=True)
class MethodSpec:
    """A method with its options; ``text`` names it everywhere, such as ``class_gradient:loss=logit``."""

    text: str
    name: str
    options: Mapping[str, str | int]
    stored: Float[ndarray, "image token"] | None = None
    """Of ``stored_rank``: the importance of all images, read from a store before anything runs."""

    @property
    def method(self) -> Method:
        return METHODS[self.name]

    def importance(self, trace: Trace, target: Int[Tensor, " image"]) -> Float[Tensor, "image token"]:
        """The map of every image, summed over blocks and heads; higher is more important.

        Raises ClasslensError where it is not finite, which no order can be made of.
        """
        found = trace.explain(target, method=self.name, **self.options)
        values = found.sum([dim for dim in found.dims if dim in ("block", "head")], skipna=False).values
        if not np.isfinite(values).all():
            raise ClasslensError(
                f"method {self.text!r} gives values that are not finite: measure in float32, or leave the method out"
            )
        return torch.from_numpy(values)


def parse_methods(methods: str | Collection[str]) -> tuple[MethodSpec, ...]:
    """Methods by their texts, ``"all"`` for all of them; raises ClasslensError for one that is not known.

        parse_methods(["class_gradient:loss=logit", "chefer"])

    Options stand behind the name, ``name:option=value:option=value``.
    """
    texts = [methods] if isinstance(methods, str) else list(methods)
    if texts == ["all"]:
        texts = list(METHODS)
    if not texts:
        raise ClasslensError(f"no methods were given: give some of {', '.join(METHODS)}, or all")
    # One written twice is measured once.
    return tuple(_asked(text) for text in dict.fromkeys(texts))


def _of_store(text: str, options: Mapping[str, str | int]) -> Mapping[str, str | int]:
    unknown = [option for option in options if option not in stored.OPTIONS]
    if unknown or "condition" not in options:
        raise ClasslensError(
            f"method {text!r} is not one of a store: write it as {stored.NAME}:condition=probe, with :site=attn_out "
            "for another site than resid_post"
        )
    return options


def _asked(text: str) -> MethodSpec:
    name, options = split_method(text)
    if name == stored.NAME:
        return MethodSpec(text, name, _of_store(text, options))
    method_of(name, options)
    for option in ("against", "query", "seed"):
        if option in options:
            why = (
                "seeds are those of the whole run" if option == "seed" else "an image is explained for its class alone"
            )
            raise ClasslensError(f"method {text!r} cannot be measured with {option}: {why}; leave it out")
    return MethodSpec(text, name, options)
