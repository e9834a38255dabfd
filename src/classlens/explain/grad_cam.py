"""Grad-CAM over the tokens that enter a block."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.arguments import whole_number
from classlens.explain.batching import explain_in_groups
from classlens.explain.method import Method
from classlens.forward.differentiable import differentiable_pass
from classlens.forward.recording import Recording


def grad_cam(
    recording: Recording,
    target: Int[Tensor, " image"],
    *,
    against: Int[Tensor, " image"] | None = None,
    block: int | None = None,
) -> Float[Tensor, "image token"]:
    """Grad-CAM over the tokens that enter a block: ``ReLU(Σ_k α_k x_k)``, ``α_k`` the mean gradient of channel ``k``.

    ``x`` are the image tokens at the input of ``block``, the last one when left out: behind the last attention of a
    ``[CLS]`` model image tokens have no gradient. The gradient is of the class logit (less that of ``against``), its
    mean over image tokens. Source: Selvaraju et al., *Grad-CAM*, ICCV 2017, equations 1 and 2, with the grid of tokens
    as the feature map.
    """
    blocks, image_tokens = len(recording.view.blocks), recording.tokens.image
    number = blocks - 1 if block is None else whole_number("block", block, 0, blocks - 1)

    def explain(images: slice) -> Tensor:
        graph = differentiable_pass(recording.view, recording.pixels[images], ("resid_pre",))
        recording.require_same_logits(graph.logits, images)
        x = graph.activations["resid_pre"][number]
        value = graph.logit(target[images], None if against is None else against[images])
        (gradient,) = graph.gradients(value, [x])
        gradient = gradient[:, image_tokens].to(recording.dtype)
        weights = recording.query_weights(images, image_tokens)
        gradient = gradient if weights is None else gradient * weights[..., None].to(gradient)
        channels = gradient.mean(dim=1, keepdim=True)
        return (x[:, image_tokens].detach().to(recording.dtype) * channels).sum(dim=-1).clamp_min(0)

    return explain_in_groups(recording, explain)


GRAD_CAM = Method(
    grad_cam,
    ("image", "token"),
    label="Grad-CAM",
    about="`ReLU(Σ_k α_k x_k)` of the tokens that enter a block, the last one by default.",
    source="Selvaraju et al., ICCV 2017",
    needs=("gradients",),
)
