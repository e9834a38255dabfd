"""The class gradient: the paper's explanation in closed form, from a recorded pass or while the model runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.arguments import taken
from classlens.core.attention import Loss, class_gradient, contrast_gradient, loss_gradient
from classlens.errors import ClasslensError
from classlens.explain.batching import slices
from classlens.explain.method import Method
from classlens.explain.queries import Queries, Query, queries_of
from classlens.forward.active_edits import Replacements, noting_replacements
from classlens.forward.edits.pooling import kept_tokens
from classlens.forward.recording import Recording
from classlens.forward.streaming import stream
from classlens.models.view import ModelView

# Rows of logits held at once, for a model that averages its tokens: 64 MiB for 1,000 classes in float32.
_ROWS = 16_384
# Inner tensors of attention that pass a hook before its output.
_INNER = ("values", "attn_joined", "attn_raw")
# Where edits may put constants in.
_EDITED = ("attn_coefficients", "attn_joined", "attn_raw", "attn_out")


def class_gradient_maps(
    recording: Recording,
    target: Int[Tensor, " image"],
    *,
    loss: Loss | None = None,
    against: Int[Tensor, " image"] | None = None,
    query: Query = None,
) -> Float[Tensor, "image block head token"]:
    """``-∂ℓ/∂A[b, h, q, j]`` for image tokens ``j``; ``q`` is ``[CLS]``, or the mean over the tokens the head pools.

    A model with several readouts (two heads, or one in two halves) is explained by their weighted sum, each with its
    own class space and queries. Source: Vilas, Schaumlöffel and Roig, *Analyzing Vision Transformers for Image
    Classification in Class Embedding Space*, NeurIPS 2023, section 4.1; the closed form is derived in the documentation
    ("The method").

    Args:
        loss: ``cross_entropy`` (the paper), ``logit`` or ``double_softmax`` (the published code). When left out,
            ``cross_entropy``, and ``logit`` beside ``against``.
        against: another class; the gradient is of the difference of the two logits.
        query: another token in the place of ``q``.
    """
    loss = resolved_loss(loss, against, recording.view)
    check_edits(recording)
    view, image_tokens = recording.view, recording.tokens.image
    shape = (len(target), len(view.blocks), view.blocks[0].heads, image_tokens.stop - image_tokens.start)
    result = torch.zeros(shape, dtype=recording.dtype)
    for queries in queries_of(recording, query):
        for images in image_groups(recording, queries):
            for block in range(len(view.blocks)):
                result[images, block] += _explain_block(recording, queries, block, images, target, loss, against)
    return result


def class_gradient_streamed(
    view: ModelView,
    pixels: Float[Tensor, "image channel height width"],
    target: Int[Tensor, " image"],
    *,
    loss: Loss | None = None,
    against: Int[Tensor, " image"] | None = None,
    query: Query = None,
) -> Float[Tensor, "image block head token"]:
    """``class_gradient_maps`` without a recording: beyond the forward pass, RAM holds the states of one block.

    The map of a block needs its values and its attention output at the queries, which are known when it has passed.
    """
    loss = resolved_loss(loss, against, view)
    tokens = view.tokens((int(pixels.shape[2]), int(pixels.shape[3])))
    held: dict[tuple[str, int], Tensor] = {}
    replaced, kept = Replacements(), kept_tokens(view, len(pixels), tokens.count)
    # A recording of the one block that passes.
    logits = pixels.new_empty(len(pixels), 0)
    passing = Recording(view, tokens, logits, pixels, held, replaced=replaced, kept=kept)
    check_edits(passing)
    shape = (len(pixels), len(view.blocks), view.blocks[0].heads, tokens.grid[0] * tokens.grid[1])
    result = torch.zeros(shape, dtype=passing.dtype)
    groups = queries_of(passing, query)

    def receive(name: str, block: int, x: Tensor) -> None:
        held[name, block] = x
        if name != "attn_out":
            return
        for queries in groups:
            for images in image_groups(passing, queries):
                result[images, block] += _explain_block(passing, queries, block, images, target, loss, against)
        held.clear()

    with noting_replacements(replaced):
        stream(view, pixels, (*_INNER, "attn_out"), receive)
    return result


def check_edits(recording: Recording) -> None:
    """Raises ClasslensError where an edit changes what the closed form reads, or weights have changed."""
    recording.require_same_model()
    recording.require_replaced(_EDITED, "gradients by attention weights in closed form")


def _explain_block(
    recording: Recording,
    queries: Queries,
    block: int,
    images: slice,
    target: Int[Tensor, " all_images"],
    loss: Loss,
    against: Int[Tensor, " all_images"] | None,
) -> Float[Tensor, "image head token"]:
    """Contribution of some queries to the map of one block, for some images; on the CPU."""
    logits = queries.at(recording.view, block).project(
        recording.activation("attn_out", block)[images, queries.positions]
    )
    classes = target[images].to(logits.device)
    gradient = (
        loss_gradient(logits, classes, loss, sigmoid=recording.view.multi_label)
        if against is None
        else contrast_gradient(logits, classes, against[images].to(logits.device))
    )
    return queries.weight * gradient_of_block(recording, queries, block, images, gradient).cpu()


def weighted(recording: Recording, queries: Queries, images: slice, gradient: Tensor) -> Tensor:
    """A gradient by query, whose mean over queries is then that over the tokens that an edit keeps."""
    weights = recording.query_weights(images, queries.positions)
    return gradient if weights is None else gradient * weights[..., None].to(gradient)


def gradient_of_block(
    recording: Recording, queries: Queries, block: int, images: slice, gradient: Float[Tensor, "image query classes"]
) -> Float[Tensor, "image head token"]:
    """``core.attention.class_gradient`` of one recorded block, for a derivative of the loss by the queries' logits."""
    return class_gradient(
        queries.at(recording.view, block),
        recording.view.blocks[block].attn,
        added=recording.activation("attn_out", block)[images, queries.positions],
        raw=recording.before_norm("attn_raw", block, images, queries.positions),
        joined=recording.before_norm("attn_joined", block, images, queries.positions),
        values=recording.activation("values", block)[images, :, recording.tokens.image],
        gradient=weighted(recording, queries, images, gradient),
        replaced=recording.replaced("attn", block, images, queries.positions),
    )


def image_groups(recording: Recording, queries: Queries) -> Iterator[slice]:
    """Images in groups whose rows of logits fit ``_ROWS``."""
    rows = len(range(*queries.positions.indices(recording.tokens.count)))
    return slices(len(recording), _ROWS // rows)


def resolved_loss(loss: Loss | None, against: object = None, view: ModelView | None = None) -> Loss:
    """The loss of a class gradient.

    Raises ClasslensError for an unknown loss, one that excludes ``against``, or one that the head does not have.
    """
    loss = taken("loss", ("cross_entropy" if against is None else "logit") if loss is None else loss, Loss)
    if view is not None and loss != "logit" and not (view.multi_label and loss == "cross_entropy"):
        view.require_exclusive(f"the loss {loss!r}", "give loss='logit'")
    if against is not None and loss != "logit":
        raise ClasslensError(
            f"loss {loss!r} is defined for one class: leave it out beside against, which takes the difference of two "
            "logits"
        )
    return loss


def _resolve(options: Mapping[str, Any]) -> dict[str, Any]:
    return {**options, "loss": resolved_loss(options.get("loss"), options.get("against"))}


CLASS_GRADIENT = Method(
    class_gradient_maps,
    ("image", "block", "head", "token"),
    label="class gradient",
    about="Negative gradient of a class loss by each head's attention weights, `-∂ℓ/∂A`, in closed form.",
    source="Vilas, Schaumlöffel and Roig, NeurIPS 2023",
    color="#14171b",
    signed=True,
    stream=class_gradient_streamed,
    resolve=_resolve,
)
