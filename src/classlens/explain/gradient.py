"""The class gradient: the paper's explanation, in closed form, for every block and head."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.attention import LOSSES, Loss, class_gradient, contrast_gradient, loss_gradient
from classlens.errors import ClasslensError, unknown
from classlens.explain.queries import Queries, Query, queries_of
from classlens.forward.recording import Recording

# Rows of logits held at once while a model that averages its tokens is explained: 64 MiB for 1,000 classes.
_ROWS = 16_384


def class_gradient_maps(
    recording: Recording,
    target: Int[Tensor, " image"],
    *,
    loss: Loss | None = None,
    against: Int[Tensor, " image"] | None = None,
    query: Query = None,
) -> Float[Tensor, "image block head token"]:
    """``-∂ℓ/∂A[b, h, q, j]`` for image tokens ``j``; ``q`` is ``[CLS]``, or the mean over the tokens the head pools.

    ``trace.explain("cat")``, ``trace.explain("cat", against="dog")``. ``loss`` is ``cross_entropy`` (the paper),
    ``logit`` or ``double_softmax`` (the published code). ``against`` asks why the class rather than another: the
    difference of the two logits, for which there is the loss ``logit`` alone. ``query`` puts another token in the place
    of ``q``: a prefix token's name, a place, or row and column. A model with several readouts (two heads, or one in two
    halves) is explained by their weighted sum, each with its own class space and queries. Source: Vilas,
    Schaumlöffel and Roig, *Analyzing Vision Transformers for Image Classification in Class Embedding Space*, NeurIPS
    2023, section 4.1; the closed form is classlens's own, and derived in the documentation ("The method").
    """
    chosen = chosen_loss(loss, against)
    view, grid = recording.view, recording.tokens.image
    shape = (len(target), len(view.blocks), view.blocks[0].heads, grid.stop - grid.start)
    result = torch.zeros(shape, dtype=recording.dtype)
    for asked in queries_of(recording, query):
        for part in parts(recording, asked):
            for number in range(len(view.blocks)):
                result[part, number] += explain_block(recording, asked, number, part, target, chosen, against)
    return result


def explain_block(
    recording: Recording,
    asked: Queries,
    block: int,
    part: slice,
    target: Int[Tensor, " image"],
    loss: Loss,
    against: Int[Tensor, " image"] | None,
) -> Float[Tensor, "image head token"]:
    """The share of some queries in the map of one block, for some images; on the CPU."""
    added = recording.activation("attn_out", block)[part, asked.places]
    logits = asked.at(recording.view, block).project(added)
    wanted = target[part].to(logits.device)
    gradient = (
        loss_gradient(logits, wanted, loss)
        if against is None
        else contrast_gradient(logits, wanted, against[part].to(logits.device))
    )
    return asked.weight * of_block(recording, asked, block, part, gradient).cpu()


def of_block(
    recording: Recording, asked: Queries, block: int, part: slice, gradient: Float[Tensor, "image query classes"]
) -> Float[Tensor, "image head token"]:
    """``class_gradient`` of one block of a recording, for the derivative of a loss by the logits of its queries."""
    return class_gradient(
        asked.at(recording.view, block),
        recording.view.blocks[block].attn,
        added=recording.activation("attn_out", block)[part, asked.places],
        raw=recording.before_norm("attn_raw", block, part, asked.places),
        joined=recording.before_norm("attn_joined", block, part, asked.places),
        values=recording.activation("values", block)[part, :, recording.tokens.image],
        gradient=gradient,
    )


def chosen_loss(loss: Loss | None, against: object) -> Loss:
    """The loss that is meant; raises ClasslensError for one that does not go with another class."""
    chosen = loss_of(loss, "cross_entropy" if against is None else "logit")
    if against is not None and chosen != "logit":
        raise ClasslensError(
            f"loss {chosen!r} is of one class: leave it out beside against, which takes the difference of two logits"
        )
    return chosen


def loss_of(loss: Loss | None, default: Loss) -> Loss:
    """The loss that is meant; raises ClasslensError for an unknown one."""
    if loss is None:
        return default
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    return loss


def parts(recording: Recording, asked: Queries) -> Iterator[slice]:
    """Some images at once, few enough for their rows of logits."""
    queries = len(range(*asked.places.indices(recording.tokens.count)))
    step = max(1, _ROWS // queries)
    for start in range(0, len(recording), step):
        yield slice(start, min(start + step, len(recording)))
