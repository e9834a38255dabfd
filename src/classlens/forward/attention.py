"""Attention weights of a forward pass, and the graph that leads from them to the class logits."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from classlens.errors import ClasslensError
from classlens.forward.hooks import evaluating, replacing, watching
from classlens.models.view import ModelView


class Graph(NamedTuple):
    """What autograd can go back through, block by block; ``attention`` holds the parts of each block's heads."""

    logits: Float[Tensor, "image category"]
    attention: list[list[Float[Tensor, "image head query token"]]]
    states: dict[str, list[Float[Tensor, "image token width"]]]


def attention_weights(
    view: ModelView, pixels: Float[Tensor, "image channel height width"]
) -> list[Float[Tensor, "image head query token"]]:
    """The weights after softmax of every block, from a pass of their own with attention in steps."""
    found: list[Tensor] = []
    with (
        evaluating(view.module),
        view.unfused(),
        watching(view, {"attention": lambda _, weights: found.append(weights)}),
    ):
        view.run(pixels.to(view.device, view.dtype))
    return found


def differentiable(
    view: ModelView, pixels: Float[Tensor, "image channel height width"], states: tuple[str, ...] = ()
) -> Graph:
    """A forward pass with its graph, for ``torch.autograd.grad``; parameters may be frozen and get no ``.grad``.

        graph = differentiable(view, pixels)
        torch.autograd.grad(graph.logits[:, 3].sum(), graph.attention[0])

    ``states`` names further points of every block, such as ``resid_post``. Raises ClasslensError for a point that a
    model only shows.
    """
    attention: list[list[Tensor]] = [[] for _ in view.blocks]
    kept: dict[str, list[Tensor]] = {name: [] for name in states}

    def keep(into: list[Tensor], x: Tensor, _: slice) -> Tensor:
        into.append(x)
        return x

    with ExitStack() as stack:
        stack.enter_context(evaluating(view.module))
        stack.enter_context(view.unfused())
        for number, block in enumerate(view.blocks):
            for name, into in [("attention", attention[number]), *kept.items()]:
                point = block.points[name]
                if not point.editable:
                    raise ClasslensError(
                        f"the blocks of model {view.name!r} only show {name}, so no gradient by it can be taken: use a "
                        "method without gradients, or describe how it is written"
                    )
                # What is read may be another tensor than the one that passes: the one that is kept has to pass on.
                stack.enter_context(replacing(point, partial(keep, into)))
        stack.enter_context(torch.enable_grad())
        leaf = pixels.detach().to(view.device, view.dtype).requires_grad_()
        return Graph(view.run(leaf), attention, kept)
