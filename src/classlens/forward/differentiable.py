"""A forward pass with its graph, for gradients by autograd."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.errors import ClasslensError
from classlens.forward.edits.edit import EXPOSED_POINTS
from classlens.forward.hooks import replacing
from classlens.forward.isolation import exclusive
from classlens.forward.run import run
from classlens.models.view import ModelView


class DifferentiablePass(NamedTuple):
    """Tensors of a forward pass with their autograd graph; lists go by block.

    ``attention`` holds one tensor for each part of a block's heads, ``activations`` the tensors of further points.
    """

    logits: Float[Tensor, "image category"]
    attention: list[list[Float[Tensor, "image head query token"]]]
    activations: dict[str, list[Float[Tensor, "image token width"]]]

    def logit(self, target: Int[Tensor, " image"], against: Int[Tensor, " image"] | None = None) -> Float[Tensor, ""]:
        """Sum of the images' class logits, less those of ``against``; the gradient at an image is that of its own."""
        return summed_logits(self.logits, target, against)

    def gradients(self, value: Float[Tensor, ""], inputs: list[Tensor]) -> list[Tensor]:
        """Gradients of ``value`` by tensors of this pass; the graph is kept."""
        return list(torch.autograd.grad(value, inputs, retain_graph=True))


def summed_logits(
    logits: Float[Tensor, "image category"], target: Int[Tensor, " image"], against: Int[Tensor, " image"] | None
) -> Float[Tensor, ""]:
    """Sum over images of a class logit, or of the difference of two."""
    with torch.enable_grad():
        chosen = [
            logits.gather(1, index[:, None].to(logits.device)) for index in (target, against) if index is not None
        ]
        return (chosen[0] if against is None else chosen[0] - chosen[1]).sum()


def attention_weights(
    view: ModelView, pixels: Float[Tensor, "image channel height width"]
) -> tuple[list[Float[Tensor, "image head query token"]], Float[Tensor, "image category"]]:
    """Weights after softmax, by block, and the logits, from one forward pass with attention in steps."""
    blocks: list[Tensor] = []
    logits = run(view, pixels, {"attention": lambda _, weights: blocks.append(weights)}, unfused=True)
    return blocks, logits


def differentiable_pass(
    view: ModelView, pixels: Float[Tensor, "image channel height width"], points: tuple[str, ...] = ()
) -> DifferentiablePass:
    """A forward pass that keeps its graph for ``torch.autograd.grad``; parameters may be frozen and get no ``.grad``.

        graph = differentiable_pass(view, pixels)
        torch.autograd.grad(graph.logits[:, 3].sum(), graph.attention[0])

    ``points`` are further points of every block, such as ``resid_post``. Raises ClasslensError for a point at which
    nothing can be replaced.
    """
    names = ("attention", *points)
    for block in view.blocks:
        for name in names:
            if not block.points[name].editable:
                raise ClasslensError(
                    f"the blocks of model {view.name!r} only show {name}, so no gradient by it can be taken: use a "
                    "method without gradients, or describe how it is written"
                )
    numbers = range(len(view.blocks))
    logits, passed = graph_at(view, pixels, [(name, block) for block in numbers for name in names], unfused=True)
    return DifferentiablePass(
        logits,
        [passed["attention", block] for block in numbers],
        {name: [part for block in numbers for part in passed[name, block]] for name in points},
    )


def graph_at(
    view: ModelView,
    pixels: Float[Tensor, "image channel height width"],
    places: Collection[tuple[str, int]],
    *,
    unfused: bool = False,
) -> tuple[Float[Tensor, "image category"], dict[tuple[str, int], list[Tensor]]]:
    """Logits of a pass with its graph, and what passes at some editable points of blocks; parts in the order of heads
    or channels. What nothing before it depends on, such as constants of an edit, begins a graph of its own."""
    passed: dict[tuple[str, int], dict[int, Tensor]] = {place: {} for place in places}

    def keep(parts: dict[int, Tensor], x: Tensor, part: slice) -> Tensor:
        x = x if x.requires_grad else x.detach().requires_grad_()
        parts[part.start or 0] = x
        return x

    with ExitStack() as stack:
        stack.enter_context(exclusive(view.module))
        for (name, block), parts in passed.items():
            # A point may read a view or copy of the passing tensor. Only what is put back lies on the graph.
            first = name == "resid_pre" and block > 0  # before edits of the block, as the output of the one before it
            stack.enter_context(replacing(view.blocks[block].points[name], partial(keep, parts), first=first))
        leaf = pixels.detach().to(view.device, view.dtype)
        leaf = (leaf.clone() if leaf.is_inference() else leaf).requires_grad_()
        exposed = not {name for name, _ in places}.isdisjoint(EXPOSED_POINTS)
        logits = run(view, leaf, unfused=unfused, exposing_coefficients=exposed, gradients=True)
    return logits, {place: [parts[start] for start in sorted(parts)] for place, parts in passed.items()}
