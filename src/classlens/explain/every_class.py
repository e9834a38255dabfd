"""The class gradient of all classes at once, from the states of one forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from classlens.core.attention import Loss, Output, class_gradient, gradient_of_heads, loss_gradient
from classlens.core.maps import Norm, compute_dtype
from classlens.core.space import ClassSpace
from classlens.errors import ClasslensError
from classlens.explain.gradient import loss_of, parts
from classlens.explain.queries import Queries, Query, queries_of
from classlens.hooks.recording import Recording

# Gradients at the heads held at once, in numbers: 64 MiB in float32.
_SCRATCH = 2**24


@dataclass(frozen=True, eq=False)
class Folded:
    """Gradients of all class logits at the joined heads of one block, without a product with E for each image.

    For the loss ``logit``, ``u_c = w ⊙ E_c`` does not depend on the image, so that (design, section 4)
    ``g_y = (W_O(γ⊙u_c) - W_O(γ⊙x̂) · mean(u_c⊙x̂)) / σ`` needs one matrix a block and model.
    """

    norm: Norm | None
    rows: Float[Tensor, "classes width"]
    """``u``, centred for a LayerNorm."""
    pulled: Float[Tensor, "classes inner"]
    """``W_O(γ⊙u)``."""
    weight: Float[Tensor, "width inner"]
    """``γ ⊙ W_O``."""

    @classmethod
    def of(cls, space: ClassSpace, output: Output) -> Folded | None:
        """None where more than one norm, or a norm after the projection, stands between the heads and E."""
        maps = space.maps
        norm = maps[0] if maps else None
        if len(maps) > 1 or not isinstance(norm, Norm | None) or output.norm is not None or output.inner is not None:
            return None
        dtype = compute_dtype(space.weight.dtype)
        rows = space.weight.detach().to(dtype)
        rows = rows if norm is None else norm.pull(rows)
        weight = output.weight.detach().to(dtype)
        if output.scale is not None:
            weight = weight * output.scale.to(dtype)[:, None]
        return cls(norm, rows, rows @ weight, weight)

    def __call__(self, added: Float[Tensor, "image query width"], classes: slice) -> Float[Tensor, "image class inner"]:
        """``mean_q ∂z_c/∂y[q]``."""
        rows, pulled = self.rows[classes], self.pulled[classes]
        added = added.to(rows.dtype)
        if self.norm is None:
            return pulled.expand(len(added), -1, -1)
        scale = self.norm.inverse_scale(added)
        centred = added - added.mean(dim=-1, keepdim=True) if self.norm.kind == "layer" else added
        unit = centred * scale
        along = (unit @ rows.T) / rows.shape[1] * scale / added.shape[1]
        return pulled * scale.mean(dim=1, keepdim=True) - along.transpose(1, 2) @ (unit @ self.weight)


def explain_every_class(
    recording: Recording, *, loss: Loss | None = None, query: Query = None
) -> Float[Tensor, "image class token"]:
    """The class gradient of every class, summed over blocks and heads: ``[image, class, token]`` in bounded memory.

    ``trace.explain("all")``. Beside the result, memory holds the gradients of some classes and images. ``loss`` is
    ``logit`` when left out, or ``cross_entropy``, whose gradient differs from it by what all classes have in common.
    """
    view, grid = recording.view, recording.tokens.image
    result = torch.zeros(len(recording), view.num_classes, grid.stop - grid.start, dtype=recording.dtype)

    def add(part: slice, classes: slice, block: int, gradient: Tensor, weight: float) -> None:
        values = recording.states("values", block)[part, :, grid].to(gradient.dtype)
        joined = values.transpose(1, 2).flatten(2)  # heads side by side: their sum is one product
        result[part, classes] += weight * (gradient @ joined.transpose(1, 2)).cpu()

    def shift(part: slice, block: int, common: Tensor, weight: float) -> None:
        result[part] += weight * common.sum(dim=1).cpu()[:, None]

    _walk(recording, slice(0, view.num_classes), loss_of(loss, "logit"), query, add, shift)
    return result


def explain_classes(
    recording: Recording, classes: slice, *, loss: Loss | None = None, query: Query = None
) -> Float[Tensor, "image class block head token"]:
    """The class gradient of some classes, for every block and head."""
    view, grid = recording.view, recording.tokens.image
    heads, number = view.blocks[0].heads, classes.stop - classes.start
    shape = (len(recording), number, len(view.blocks), heads, grid.stop - grid.start)
    result = torch.zeros(shape, dtype=recording.dtype)

    def add(part: slice, some: slice, block: int, gradient: Tensor, weight: float) -> None:
        values = recording.states("values", block)[part, :, grid].to(gradient.dtype)
        found = torch.einsum("inhc,ihtc->inht", gradient.unflatten(2, (heads, -1)), values)
        result[part, some.start - classes.start : some.stop - classes.start, block] += weight * found.cpu()

    def shift(part: slice, block: int, common: Tensor, weight: float) -> None:
        result[part, :, block] += weight * common.cpu()[:, None]

    _walk(recording, classes, loss_of(loss, "logit"), query, add, shift)
    return result


def _walk(
    recording: Recording,
    classes: slice,
    loss: Loss,
    query: Query,
    add: Callable[[slice, slice, int, Tensor, float], None],
    shift: Callable[[slice, int, Tensor, float], None],
) -> None:
    """Hand over, for some images and classes at once, the gradients of their logits at the heads of every block."""
    if loss == "double_softmax":
        raise ClasslensError("loss 'double_softmax' is not folded over all classes: give logit or cross_entropy")
    view, grid = recording.view, recording.tokens.image
    for asked in queries_of(recording, query):
        folded = [Folded.of(asked.space, block.attn) for block in view.blocks]
        for part in parts(recording, asked):
            for number, block in enumerate(view.blocks):
                added = recording.states("attn_out", number)[part, asked.places]
                fold = folded[number]
                inner = block.attn.weight.shape[1]
                images, queries = added.shape[:2]
                step = max(
                    1, _SCRATCH // (images * (inner if fold is not None else queries * (inner + view.num_classes)))
                )
                for start in range(classes.start, classes.stop, step):
                    some = slice(start, min(start + step, classes.stop))
                    gradient = fold(added, some) if fold else _one_by_one(recording, asked, number, part, some)
                    add(part, some, number, gradient, asked.weight)
                if loss == "cross_entropy":
                    # What the softmax adds: the same for every class.
                    target = torch.zeros(images, dtype=torch.int64, device=added.device)
                    logits = asked.space.project(added)
                    common = loss_gradient(logits, target, "cross_entropy") - loss_gradient(logits, target, "logit")
                    found = class_gradient(
                        asked.space,
                        block.attn,
                        added=added,
                        raw=recording.inside("attn_raw", number, part, asked.places),
                        joined=recording.inside("attn_joined", number, part, asked.places),
                        values=recording.states("values", number)[part, :, grid],
                        gradient=common,
                    )
                    shift(part, number, found, asked.weight)


def _one_by_one(recording: Recording, asked: Queries, block: int, part: slice, classes: slice) -> Tensor:
    """The gradients where nothing can be folded: some classes stand beside each other like images."""
    attn = recording.view.blocks[block].attn
    count = classes.stop - classes.start

    def repeated(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.repeat_interleave(count, dim=0)

    added = repeated(recording.states("attn_out", block)[part, asked.places])
    assert added is not None
    added = added.to(recording.dtype)
    hot = F.one_hot(torch.arange(classes.start, classes.stop, device=added.device), asked.space.num_classes)
    gradient = hot.to(added.dtype).repeat(len(added) // count, 1)[:, None].expand(-1, added.shape[1], -1)
    pulled = gradient_of_heads(
        attn,
        asked.space.vjp(added, gradient),
        raw=repeated(recording.inside("attn_raw", block, part, asked.places)),
        joined=repeated(recording.inside("attn_joined", block, part, asked.places)),
    )
    return pulled.view(-1, count, pulled.shape[1])
