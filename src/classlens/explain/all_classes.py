"""The class gradient of all classes at once, from the states of one forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from classlens.core.attention import Loss, Output, gradient_of_heads, loss_gradient
from classlens.core.maps import Norm, compute_dtype
from classlens.core.space import ClassSpace
from classlens.errors import ClasslensError
from classlens.explain.gradient import loss_of, of_block, parts
from classlens.explain.queries import Queries, Query, queries_of
from classlens.forward.recording import Recording

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
    """``u``, centered for a LayerNorm."""
    pulled: Float[Tensor, "classes inner"]
    """``W_O(γ⊙u)``."""
    weight: Float[Tensor, "width inner"]
    """``γ ⊙ W_O``."""

    @classmethod
    def of(cls, space: ClassSpace, output: Output, classes: slice) -> Folded | None:
        """Of some classes; None where more than one norm, or one after the projection, stands between heads and E."""
        maps = space.maps
        norm = maps[0] if maps else None
        if len(maps) > 1 or not isinstance(norm, Norm | None) or output.norm is not None or output.inner is not None:
            return None
        dtype = compute_dtype(space.weight.dtype)
        rows = space.weight[classes].detach().to(dtype)
        rows = rows if norm is None else norm.pull(rows)
        weight = output.weight.detach().to(dtype)
        if output.scale is not None:
            weight = weight * output.scale.to(dtype)[:, None]
        return cls(norm, rows, rows @ weight, weight)

    def at(self, added: Float[Tensor, "image query width"], some: slice) -> Gradients:
        """``mean_q ∂z_c/∂y[q]`` of some of the classes, counted from the first of them."""
        rows, pulled = self.rows[some], self.pulled[some]
        added = added.to(rows.dtype)
        if self.norm is None:
            return Gradients(pulled)
        scale = self.norm.inverse_scale(added)
        centered = added - added.mean(dim=-1, keepdim=True) if self.norm.kind == "layer" else added
        unit = centered * scale
        along = (unit @ rows.T) * (scale / (rows.shape[1] * added.shape[1]))
        return Gradients(pulled, scale.mean(dim=1, keepdim=True), unit @ self.weight, along)


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradients of some class logits at the joined heads: ``shared · scale - alongᵀ keys``, never written out.

    Only the first part is as large as classes times channels, and it is the same for all images.
    """

    shared: Float[Tensor, "class inner"] | Float[Tensor, "image class inner"]
    scale: Float[Tensor, "image 1 1"] | None = None
    keys: Float[Tensor, "image query inner"] | None = None
    along: Float[Tensor, "image query class"] | None = None

    def times(
        self, values: Float[Tensor, "image token channel"], channels: slice = slice(None)
    ) -> Float[Tensor, "image token class"]:
        """Their products with value vectors, of all channels or of one head's."""
        values = values.to(self.shared.dtype)
        found = values @ self.shared[..., channels].transpose(-1, -2)
        if self.scale is None or self.keys is None or self.along is None:
            return found
        return torch.baddbmm(found * self.scale, values @ self.keys[..., channels].mT, self.along, alpha=-1)


def explain_every_class(
    recording: Recording, *, loss: Loss | None = None, query: Query = None
) -> Float[Tensor, "image class token"]:
    """The class gradient of every class, summed over blocks and heads: ``[image, class, token]`` in bounded memory.

    ``trace.explain("all")``. Beside the result, memory holds the gradients of some classes and images. ``loss`` is
    ``logit`` when left out, or ``cross_entropy``, whose gradient differs from it by what all classes have in common.
    """
    view, grid = recording.view, recording.tokens.image
    result = torch.zeros(len(recording), view.num_classes, grid.stop - grid.start, dtype=recording.dtype)

    def add(part: slice, classes: slice, block: int, gradients: Gradients, weight: float) -> None:
        values = recording.activation("values", block)[part, :, grid]
        # Heads side by side: their sum is one product.
        found = gradients.times(values.transpose(1, 2).flatten(2))
        result[part, classes] += weight * found.mT.cpu()

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

    def add(part: slice, some: slice, block: int, gradients: Gradients, weight: float) -> None:
        values = recording.activation("values", block)[part, :, grid]
        own, width = slice(some.start - classes.start, some.stop - classes.start), values.shape[-1]
        for head in range(heads):
            found = gradients.times(values[:, head], slice(head * width, (head + 1) * width))
            result[part, own, block, head] += weight * found.mT.cpu()

    def shift(part: slice, block: int, common: Tensor, weight: float) -> None:
        result[part, :, block] += weight * common.cpu()[:, None]

    _walk(recording, classes, loss_of(loss, "logit"), query, add, shift)
    return result


def _walk(
    recording: Recording,
    classes: slice,
    loss: Loss,
    query: Query,
    add: Callable[[slice, slice, int, Gradients, float], None],
    shift: Callable[[slice, int, Tensor, float], None],
) -> None:
    """Hand over, for some images and classes at once, the gradients of their logits at the heads of every block."""
    if loss == "double_softmax":
        raise ClasslensError("loss 'double_softmax' is not folded over all classes: give logit or cross_entropy")
    view, grid = recording.view, recording.tokens.image
    for asked in queries_of(recording, query):
        folded = [Folded.of(asked.at(view, number), block.attn, classes) for number, block in enumerate(view.blocks)]
        for part in parts(recording, asked):
            for number, block in enumerate(view.blocks):
                added = recording.activation("attn_out", number)[part, asked.places]
                fold = folded[number]
                inner = block.attn.weight.shape[1]
                images, queries = added.shape[:2]
                each = grid.stop - grid.start + queries if fold else queries * (inner + view.num_classes)
                step = max(1, _SCRATCH // (images * each))
                for start in range(classes.start, classes.stop, step):
                    some = slice(start, min(start + step, classes.stop))
                    gradients = (
                        fold.at(added, slice(start - classes.start, some.stop - classes.start))
                        if fold
                        else _one_by_one(recording, asked, number, part, some)
                    )
                    add(part, some, number, gradients, asked.weight)
                if loss == "cross_entropy":
                    # What the softmax adds: the same for every class.
                    target = torch.zeros(images, dtype=torch.int64, device=added.device)
                    logits = asked.at(view, number).project(added)
                    common = loss_gradient(logits, target, "cross_entropy") - loss_gradient(logits, target, "logit")
                    shift(part, number, of_block(recording, asked, number, part, common), asked.weight)


def _one_by_one(recording: Recording, asked: Queries, block: int, part: slice, classes: slice) -> Gradients:
    """The gradients where nothing can be folded: some classes stand beside each other like images."""
    attn = recording.view.blocks[block].attn
    count = classes.stop - classes.start

    def repeated(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.repeat_interleave(count, dim=0)

    added = repeated(recording.activation("attn_out", block)[part, asked.places])
    assert added is not None
    added = added.to(recording.dtype)
    hot = F.one_hot(torch.arange(classes.start, classes.stop, device=added.device), asked.space.num_classes)
    gradient = hot.to(added.dtype).repeat(len(added) // count, 1)[:, None].expand(-1, added.shape[1], -1)
    pulled = gradient_of_heads(
        attn,
        asked.at(recording.view, block).vjp(added, gradient),
        raw=repeated(recording.before_norm("attn_raw", block, part, asked.places)),
        joined=repeated(recording.before_norm("attn_joined", block, part, asked.places)),
    )
    return Gradients(pulled.view(-1, count, pulled.shape[1]))
