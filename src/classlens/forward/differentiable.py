"""A forward pass with its graph, for gradients by autograd."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.errors import ClasslensError
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
    attention: list[list[Tensor]] = [[] for _ in view.blocks]
    activations: dict[str, list[Tensor]] = {name: [] for name in points}

    def keep(tensors: list[Tensor], x: Tensor, _: slice) -> Tensor:
        tensors.append(x)
        return x

    with ExitStack() as stack:
        stack.enter_context(exclusive(view.module))
        for number, block in enumerate(view.blocks):
            for name, tensors in [("attention", attention[number]), *activations.items()]:
                point = block.points[name]
                if not point.editable:
                    raise ClasslensError(
                        f"the blocks of model {view.name!r} only show {name}, so no gradient by it can be taken: use a "
                        "method without gradients, or describe how it is written"
                    )
                # A point may read a view or copy of the passing tensor. Only what is put back lies on the graph.
                stack.enter_context(replacing(point, partial(keep, tensors)))
        leaf = pixels.detach().to(view.device, view.dtype)
        leaf = (leaf.clone() if leaf.is_inference() else leaf).requires_grad_()
        return DifferentiablePass(run(view, leaf, unfused=True, gradients=True), attention, activations)
