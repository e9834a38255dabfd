"""LeGrad: gradients of each block's own class logit by its attention weights."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from classlens.core.arguments import taken
from classlens.explain.batching import explain_in_groups
from classlens.explain.method import Method
from classlens.forward.differentiable import differentiable_pass, summed_logits
from classlens.forward.recording import Recording
from classlens.models.view import ModelView

Pool = Literal["mean", "head"]


def legrad(
    recording: Recording,
    target: Int[Tensor, " image"],
    *,
    against: Int[Tensor, " image"] | None = None,
    pool: Pool = "mean",
) -> Float[Tensor, "image block head token"]:
    """LeGrad: the positive gradient of each block's own class logit by its attention weights, mean over queries.

    ``(∂z_b/∂A_b)⁺ / (queries · heads · blocks)``, so that the sum over blocks and heads is the published mean, before
    its scaling to 0…1. A model with several readouts has the weighted sum of their logits. Source: Bousselham et al.,
    *LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity*, ICCV 2025, section 3.

    Args:
        against: another class; the gradient is of the difference of the two logits.
        pool: tokens of ``resid_post[b]`` that give the logit of block ``b`` through the final norm and the head.
            ``mean``: the mean over all tokens, prefix tokens among them, as in the authors' code, also for ``[CLS]``
            models. ``head``: the tokens as the model's own head pools them after the last block.
    """
    view, image_tokens = recording.view, recording.tokens.image
    taken("pool", pool, Pool)
    logits_after = _logits_of_mean if pool == "mean" else ModelView.logits_after

    def explain(images: slice) -> Tensor:
        graph = differentiable_pass(view, recording.pixels[images], ("resid_post",))
        recording.require_same_logits(graph.logits, images)
        kept = None if recording.kept is None else recording.kept[images]
        maps = []
        for block, (weights, state) in enumerate(zip(graph.attention, graph.activations["resid_post"], strict=True)):
            with torch.enable_grad():
                logits = logits_after(view, block, state, kept)
                logit = summed_logits(logits, target[images], None if against is None else against[images])
            gradient = torch.cat(graph.gradients(logit, weights), dim=1).to(recording.dtype)
            maps.append(_mean(gradient.clamp_min(0), kept)[:, :, image_tokens])
        return torch.stack(maps, dim=1) / (len(maps) * maps[0].shape[1])

    return explain_in_groups(recording, explain)


def _mean(x: Float[Tensor, "image *head token last"], kept: Bool[Tensor, "image token"] | None) -> Tensor:
    """The mean over tokens, those that an edit keeps."""
    if kept is None:
        return x.mean(dim=-2)
    weights = kept.to(x) / kept.sum(dim=1, keepdim=True)
    return torch.einsum("it,i...tc->i...c", weights, x)


def _logits_of_mean(
    view: ModelView,
    block: int,
    states: Float[Tensor, "image token width"],
    kept: Bool[Tensor, "image token"] | None,
) -> Float[Tensor, "image category"]:
    """Class logits of the mean over all tokens after a block."""
    mean = _mean(states, kept)
    spaces = [(view.space_at(readout.space, "resid_post", block), readout.weight) for readout in view.readouts]
    return torch.stack([weight * space.project(mean) for space, weight in spaces]).sum(dim=0)


LEGRAD = Method(
    legrad,
    ("image", "block", "head", "token"),
    label="LeGrad",
    about="Positive gradient of each block's own class logit by its attention weights, mean over queries.",
    source="Bousselham et al., ICCV 2025",
    needs=("attention weights", "gradients"),
)
