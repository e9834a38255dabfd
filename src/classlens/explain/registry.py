"""All methods in one table: one signature, and dims for what a method tells apart."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from classlens.errors import ClasslensError, unknown
from classlens.explain.attention import attention, rollout
from classlens.explain.attribution import attribute
from classlens.explain.backward import chefer, grad_cam, legrad
from classlens.explain.gradient import class_gradient_maps
from classlens.explain.ranks import class_rank, random
from classlens.forward.recording import Recording

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
    drawn: bool = False
    """Whether its maps are random orders, in which no image plays a part."""
    complete: bool = False
    """Whether its values, with those of the other parts of the model, sum to the class logit."""

    @property
    def options(self) -> tuple[str, ...]:
        return tuple(self.defaults)

    @property
    def defaults(self) -> dict[str, Any]:
        """Each option with its value where it is left out."""
        parameters = inspect.signature(self.run).parameters.values()
        return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


def logit_attribution(recording: Recording, target: Int[Tensor, " image"]) -> Tensor:
    """What each image token adds to the class logit through the attention of every head, exactly (law 3).

    ``trace.explain("cat", method="logit_attribution")``, in logits, of either sign:
    ``Σ_q w_q A[h, q, j] (v[h, j] W_O[h]) · d``, LayerScale within ``W_O``. ``q`` are the tokens that the head pools,
    and ``d`` and ``w`` make the logit the linear function ``Σ_q w_q x_q · d + constant`` of the last hidden states
    while the scale of every norm is held at its value. With the embeddings, MLPs and biases (``trace.attribution``) the
    sum over blocks, heads and all tokens is the logit. Raises ClasslensError for a head that pools by attention.
    Source: the direct path of Elhage et al., *A Mathematical Framework for Transformer Circuits*, 2021
    (transformer-circuits.pub).
    """
    found = attribute(recording, target.to(recording.view.device)).attention
    return found[..., recording.tokens.image]


def log_odds(recording: Recording, target: Int[Tensor, " image"]) -> Tensor:
    """What each image token adds to the class beyond what it adds to its rivals, through the attention of every head.

    ``trace.explain("cat", method="log_odds")``, in units of ``log p/(1-p)``: the attribution of ``z_c - Σ_k q_k z_k``,
    where ``q`` is the model's softmax over all other classes, so that close rivals count most. Source: classlens; the
    weights are the slopes of the log odds by the logits, and each logit is attributed exactly, as by
    ``logit_attribution``. How it was found and how faithful it is stands in the documentation.
    """
    logits = recording.logits.to(recording.dtype)
    own = F.one_hot(target.to(logits.device), logits.shape[1])
    # One class alone has no rivals, and its softmax is over nothing.
    rivals = logits.masked_fill(own.bool(), -torch.inf).softmax(dim=1).nan_to_num()
    return attribute(recording, own - rivals).attention[..., recording.tokens.image]


METHODS: Mapping[str, Method] = {
    "class_gradient": Method(class_gradient_maps, _HEADS, signed=True),
    "attention": Method(attention, _TOKEN, of_class=False),
    "rollout": Method(rollout, _TOKEN, of_class=False),
    "chefer": Method(chefer, _TOKEN),
    "grad_cam": Method(grad_cam, _TOKEN),
    "legrad": Method(legrad, _HEADS),
    "class_rank": Method(class_rank, ("image", "block", "token")),
    "logit_attribution": Method(logit_attribution, _HEADS, signed=True, complete=True),
    "log_odds": Method(log_odds, _HEADS, signed=True),
    "random": Method(random, _TOKEN, of_class=False, drawn=True),
}


def parse_method(text: str) -> tuple[str, dict[str, str | int]]:
    """Name and options of a method as it is written on the command line.

        parse_method("class_gradient:loss=logit")   # ("class_gradient", {"loss": "logit"})

    Raises ClasslensError for another form, an option that is there twice, and all that ``method_of`` refuses.
    """
    name, options = split_method(text)
    method_of(name, options)
    return name, options


def split_method(text: str) -> tuple[str, dict[str, str | int]]:
    """``parse_method`` for any name."""
    name, *parts = text.split(":")
    options: dict[str, str | int] = {}
    for part in parts:
        option, equals, value = part.partition("=")
        if not (option and equals and value):
            raise ClasslensError(f"method {text!r} is not NAME:OPTION=VALUE: write it as class_gradient:loss=logit")
        if option in options:
            raise ClasslensError(f"method {text!r} has the option {option!r} twice: leave one out")
        options[option] = int(value) if value.isdecimal() else value
    return name, options


def method_of(name: str, options: Mapping[str, Any]) -> Method:
    """The method of this name; raises ClasslensError for an unknown one, and for options that it does not take."""
    if str(name) not in METHODS:
        raise unknown("method", name, METHODS)
    found = METHODS[name]
    for option in options:
        if option not in found.options:
            takes = f"it takes {', '.join(found.options)}" if found.options else "it takes none"
            raise ClasslensError(f"method {name!r} has no option {option!r}: {takes}")
    return found
