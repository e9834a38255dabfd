"""All methods in one table: one signature, and dims for what a method tells apart."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from classlens.errors import ClasslensError, near
from classlens.explain.attention import attention, rollout
from classlens.explain.attribution import attribute
from classlens.explain.backward import chefer, grad_cam, legrad
from classlens.explain.gradient import explain
from classlens.explain.ranks import class_rank, random
from classlens.hooks.recording import Recording

_TOKEN = ("image", "token")
_HEADS = ("image", "block", "head", "token")


@dataclass(frozen=True)
class Method:
    """A way to say how much each image token matters; ``run(recording, target, **options)`` gives its ``dims``."""

    run: Callable[..., Tensor]
    dims: tuple[str, ...]
    signed: bool = False
    """Whether values below zero speak against the class; else all are at least 0."""
    of_class: bool = True
    """Whether it knows of the class at all."""

    @property
    def options(self) -> tuple[str, ...]:
        parameters = inspect.signature(self.run).parameters.values()
        return tuple(one.name for one in parameters if one.kind is one.KEYWORD_ONLY)


def logit_attribution(recording: Recording, target: Int[Tensor, " image"]) -> Tensor:
    """What each image token adds to the class logit through the attention of every head, exactly (law 3).

    ``trace.explain("cat", method="logit_attribution")``, in logits. Source: design, section 1.
    """
    found = attribute(recording, target.to(recording.view.device)).attention
    return found[..., recording.tokens.image]


METHODS: Mapping[str, Method] = {
    "class_gradient": Method(explain, _HEADS, signed=True),
    "attention": Method(attention, _TOKEN, of_class=False),
    "rollout": Method(rollout, _TOKEN, of_class=False),
    "chefer": Method(chefer, _TOKEN),
    "grad_cam": Method(grad_cam, _TOKEN),
    "legrad": Method(legrad, _HEADS),
    "class_rank": Method(class_rank, ("image", "block", "token")),
    "logit_attribution": Method(logit_attribution, _HEADS, signed=True),
    "random": Method(random, _TOKEN, of_class=False),
}


def method_of(name: str, options: Mapping[str, Any]) -> Method:
    """The method of this name; raises ClasslensError for an unknown one, and for options that it does not take."""
    if name not in METHODS:
        raise ClasslensError(
            f"method {name!r} is not known{near(str(name), METHODS)}; give one of {', '.join(METHODS)}"
        )
    found = METHODS[name]
    for option in options:
        if option not in found.options:
            takes = f"it takes {', '.join(found.options)}" if found.options else "it takes none"
            raise ClasslensError(f"method {name!r} has no option {option!r}: {takes}")
    return found
