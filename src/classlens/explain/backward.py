"""Explanations from gradients by autograd: Chefer's method, Grad-CAM and LeGrad. No gradient is left in the model."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.arguments import whole_number
from classlens.errors import unknown
from classlens.explain.batching import explain_in_groups
from classlens.explain.method import Method
from classlens.explain.queries import Query, check_query, query_rows
from classlens.forward.attention import DifferentiablePass, differentiable_pass
from classlens.forward.recording import Recording
from classlens.models.view import ModelView

_POOLS = ("mean", "head")


def chefer(recording: Recording, target: Int[Tensor, " image"], *, query: Query = None) -> Float[Tensor, "image token"]:
    """Gradient times attention, carried through the blocks: ``R ← R + mean_h (∇A_b ⊙ A_b)⁺ R``, from ``R = I``.

    ``∇A`` is the gradient of the class logit; the row of the query is the map, at least 0. This is not the LRP-based
    method of the same authors (CVPR 2021). Raises ClasslensError for a head that pools by attention, unless ``query``
    is given. Source: Chefer, Gur and Wolf, *Generic Attention-model Explainability*, ICCV 2021, equations 5 and 6 for
    self-attention.
    """
    check_query(recording, query)

    def explain(images: slice) -> Tensor:
        graph = differentiable_pass(recording.view, recording.pixels[images])
        gradients = _gradients(_logit(graph, target[images]), [part for block in graph.attention for part in block])
        count = recording.tokens.count
        relevance = torch.eye(count, dtype=recording.dtype, device=graph.logits.device)
        relevance = relevance.expand(len(graph.logits), -1, -1)
        for block in graph.attention:
            weights = torch.cat(block, dim=1).detach().to(recording.dtype)
            gradient = torch.cat([gradients.pop(0) for _ in block], dim=1).to(recording.dtype)
            relevance = relevance + (weights * gradient).clamp_min(0).mean(dim=1) @ relevance
        return query_rows(recording, query, relevance)

    return explain_in_groups(recording, explain)


def grad_cam(
    recording: Recording, target: Int[Tensor, " image"], *, block: int | None = None
) -> Float[Tensor, "image token"]:
    """Grad-CAM over the tokens that enter a block: ``ReLU(Σ_k α_k x_k)``, ``α_k`` the mean gradient of channel ``k``.

    ``x`` are the image tokens at the input of ``block``, the last one when left out: behind the last attention of a
    ``[CLS]`` model image tokens have no gradient. The gradient is of the class logit, its mean over image tokens.
    Source: Selvaraju et al., *Grad-CAM*, ICCV 2017, equations 1 and 2, with the grid of tokens as the feature map.
    """
    blocks, image_tokens = len(recording.view.blocks), recording.tokens.image
    number = blocks - 1 if block is None else whole_number("block", block, 0, blocks - 1)

    def explain(images: slice) -> Tensor:
        graph = differentiable_pass(recording.view, recording.pixels[images], ("resid_pre",))
        x = graph.activations["resid_pre"][number]
        (gradient,) = _gradients(_logit(graph, target[images]), [x])
        channels = gradient[:, image_tokens].to(recording.dtype).mean(dim=1, keepdim=True)
        return (x[:, image_tokens].detach().to(recording.dtype) * channels).sum(dim=-1).clamp_min(0)

    return explain_in_groups(recording, explain)


def legrad(
    recording: Recording, target: Int[Tensor, " image"], *, pool: str = "mean"
) -> Float[Tensor, "image block head token"]:
    """LeGrad: the positive gradient of each block's own class logit by its attention weights, mean over queries.

    ``(∂z_b/∂A_b)⁺ / (queries · heads · blocks)``, so that the sum over blocks and heads is the published mean, before
    its scaling to 0…1. A model with several readouts has the weighted sum of their logits. Source: Bousselham et al.,
    *LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity*, ICCV 2025, section 3.

    Args:
        pool: tokens of ``resid_post[b]`` that give the logit of block ``b`` through the final norm and the head.
            ``mean``: the mean over all tokens, prefix tokens among them, as in the authors' code, also for ``[CLS]``
            models. ``head``: the tokens as the model's own head pools them after the last block.
    """
    view, image_tokens = recording.view, recording.tokens.image
    if pool not in _POOLS:
        raise unknown("pool", pool, _POOLS)
    logits_after = _logits_of_mean if pool == "mean" else ModelView.logits_after

    def explain(images: slice) -> Tensor:
        graph = differentiable_pass(view, recording.pixels[images], ("resid_post",))
        maps = []
        for block, (weights, state) in enumerate(zip(graph.attention, graph.activations["resid_post"], strict=True)):
            logit = logits_after(view, block, state).gather(1, target[images, None].to(state.device)).sum()
            gradient = torch.cat(_gradients(logit, weights), dim=1).to(recording.dtype)
            maps.append(gradient.clamp_min(0).mean(dim=2)[:, :, image_tokens])
        return torch.stack(maps, dim=1) / (len(maps) * maps[0].shape[1])

    return explain_in_groups(recording, explain)


def _logits_of_mean(
    view: ModelView, block: int, states: Float[Tensor, "image token width"]
) -> Float[Tensor, "image category"]:
    """Class logits of the mean over all tokens after a block."""
    mean = states.mean(dim=1)
    spaces = [(view.space_at(readout.space, "resid_post", block), readout.weight) for readout in view.readouts]
    return torch.stack([weight * space.project(mean) for space, weight in spaces]).sum(dim=0)


def _logit(graph: DifferentiablePass, target: Int[Tensor, " image"]) -> Float[Tensor, ""]:
    """Sum of the images' class logits; its gradient at one image is that of the image's own logit."""
    return graph.logits.gather(1, target[:, None].to(graph.logits.device)).sum()


def _gradients(value: Float[Tensor, ""], inputs: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(value, inputs, retain_graph=True))


CHEFER = Method(
    chefer,
    ("image", "token"),
    label="Chefer",
    about="Gradient times attention, carried through the blocks, `R ← R + mean_h (∇A ⊙ A)⁺ R`.",
    source="Chefer, Gur and Wolf, ICCV 2021",
    needs=("attention weights", "gradients"),
)
GRAD_CAM = Method(
    grad_cam,
    ("image", "token"),
    label="Grad-CAM",
    about="`ReLU(Σ_k α_k x_k)` of the tokens that enter a block, the last one by default.",
    source="Selvaraju et al., ICCV 2017",
    needs=("gradients",),
)
LEGRAD = Method(
    legrad,
    ("image", "block", "head", "token"),
    label="LeGrad",
    about="Positive gradient of each block's own class logit by its attention weights, mean over queries.",
    source="Bousselham et al., ICCV 2025",
    needs=("attention weights", "gradients"),
)
