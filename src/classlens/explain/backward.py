"""Explanations that take gradients by autograd: Chefer's, Grad-CAM and LeGrad. They leave nothing behind."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.arguments import whole_number
from classlens.errors import unknown
from classlens.explain.batching import over_images
from classlens.explain.queries import Query, check_rows, rows_of
from classlens.forward.attention import Graph, differentiable
from classlens.forward.recording import Recording
from classlens.models.view import ModelView

_POOLS = ("mean", "head")


def chefer(recording: Recording, target: Int[Tensor, " image"], *, query: Query = None) -> Float[Tensor, "image token"]:
    """Gradient times attention, carried through the blocks: ``R ← R + mean_h (∇A_b ⊙ A_b)⁺ R``, from ``R = I``.

    ``trace.explain("cat", method="chefer")``. ``∇A`` is the gradient of the class logit; the row of the query is the
    map, at least 0. Source: Chefer, Gur and Wolf, *Generic Attention-model Explainability*, ICCV 2021, equations 5
    and 6 for self-attention. This is not the LRP-based method of the same authors (CVPR 2021). Raises ClasslensError
    for a head that pools by attention, unless ``query`` is given.
    """
    check_rows(recording, query)

    def found(part: slice) -> Tensor:
        graph = differentiable(recording.view, recording.pixels[part])
        gradients = _gradients(_logit(graph, target[part]), [one for block in graph.attention for one in block])
        count = recording.tokens.count
        carried = torch.eye(count, dtype=recording.dtype, device=graph.logits.device).expand(len(graph.logits), -1, -1)
        for block in graph.attention:
            weights = torch.cat(block, dim=1).detach().to(recording.dtype)
            gradient = torch.cat([gradients.pop(0) for _ in block], dim=1).to(recording.dtype)
            carried = carried + (weights * gradient).clamp_min(0).mean(dim=1) @ carried
        return rows_of(recording, query, carried)

    return over_images(recording, found)


def grad_cam(
    recording: Recording, target: Int[Tensor, " image"], *, block: int | None = None
) -> Float[Tensor, "image token"]:
    """Grad-CAM over the tokens that enter a block: ``ReLU(Σ_k α_k x_k)``, ``α_k`` the mean gradient of channel ``k``.

    ``trace.explain("cat", method="grad_cam")``. ``x`` are the image tokens as ``block`` takes them in, the last one
    when left out: what comes after the last attention has no gradient at image tokens of a ``[CLS]`` model. The
    gradient is of the class logit, its mean over image tokens. Source: Selvaraju et al., *Grad-CAM*, ICCV 2017,
    equations 1 and 2, the grid of tokens in the place of a feature map.
    """
    blocks, grid = len(recording.view.blocks), recording.tokens.image
    place = blocks - 1 if block is None else whole_number("block", block, 0, blocks - 1)

    def found(part: slice) -> Tensor:
        graph = differentiable(recording.view, recording.pixels[part], ("resid_pre",))
        x = graph.states["resid_pre"][place]
        (gradient,) = _gradients(_logit(graph, target[part]), [x])
        channels = gradient[:, grid].to(recording.dtype).mean(dim=1, keepdim=True)
        return (x[:, grid].detach().to(recording.dtype) * channels).sum(dim=-1).clamp_min(0)

    return over_images(recording, found)


def legrad(
    recording: Recording, target: Int[Tensor, " image"], *, pool: str = "mean"
) -> Float[Tensor, "image block head token"]:
    """LeGrad: the positive gradient of each block's own class logit with respect to its attention, mean over queries.

    ``trace.explain("cat", method="legrad").sum(("block", "head"))``. The logit of block ``b`` is that of the mean over
    all tokens of ``resid_post[b]``, prefix tokens among them, through the final norm and the head (``pool="mean"``, as
    in the authors' code, also for ``[CLS]`` models), or of these tokens pooled as the model's own head pools those
    after the last block (``pool="head"``). A model with several readouts has the weighted sum of their logits.
    ``(∂z_b/∂A_b)⁺ / (queries · heads · blocks)``, so that the sum over blocks and heads is the published mean, before
    its scaling to 0…1. At least 0. Raises ClasslensError for another ``pool``. Source: Bousselham et al., *LeGrad: An
    Explainability Method for Vision Transformers via Feature Formation Sensitivity*, ICCV 2025, section 3.
    """
    view, grid = recording.view, recording.tokens.image
    if pool not in _POOLS:
        raise unknown("pool", pool, _POOLS)
    logits = _of_mean if pool == "mean" else ModelView.logits_after

    def found(part: slice) -> Tensor:
        graph = differentiable(view, recording.pixels[part], ("resid_post",))
        blocks = []
        for number, (weights, state) in enumerate(zip(graph.attention, graph.states["resid_post"], strict=True)):
            own = logits(view, number, state).gather(1, target[part, None].to(state.device)).sum()
            gradient = torch.cat(_gradients(own, weights), dim=1).to(recording.dtype)
            blocks.append(gradient.clamp_min(0).mean(dim=2)[:, :, grid])
        return torch.stack(blocks, dim=1) / (len(blocks) * blocks[0].shape[1])

    return over_images(recording, found)


def _of_mean(
    view: ModelView, block: int, states: Float[Tensor, "image token width"]
) -> Float[Tensor, "image category"]:
    """The logits of the mean over all tokens after a block."""
    mean = states.mean(dim=1)
    spaces = [(view.space_at(readout.space, "resid_post", block), readout.weight) for readout in view.readouts]
    return torch.stack([weight * space.project(mean) for space, weight in spaces]).sum(dim=0)


def _logit(graph: Graph, target: Int[Tensor, " image"]) -> Tensor:
    """The sum over images of their class logits: images do not see each other."""
    return graph.logits.gather(1, target[:, None].to(graph.logits.device)).sum()


def _gradients(value: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(value, inputs, retain_graph=True))
