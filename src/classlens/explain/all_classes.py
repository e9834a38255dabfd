"""The class gradient of all classes at once, from the states of one forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from classlens.core.attention import Loss, Output, Replaced, gradient_of_heads, loss_gradient
from classlens.core.space import ClassSpace
from classlens.core.steps import Norm, compute_dtype
from classlens.errors import ClasslensError
from classlens.explain.batching import slices
from classlens.explain.class_gradient import check_edits, gradient_of_block, image_groups, resolved_loss
from classlens.explain.queries import Queries, Query, queries_of
from classlens.forward.recording import Recording

# Numbers of the gradients at the heads held at once: 64 MiB in float32.
_SCRATCH = 2**24


@dataclass(frozen=True, eq=False)
class FoldedBlock:
    """Gradients of all class logits at the joined heads of one block, without a product with E for each image.

    For the loss ``logit``, ``u_c = w ⊙ E_c`` does not depend on the image, so that
    ``g_y = (W_O(γ⊙u_c) - W_O(γ⊙x̂) · mean(u_c⊙x̂)) / σ`` needs one matrix per block and model.
    """

    norm: Norm | None
    rows: Float[Tensor, "classes width"]
    """``u``, centered for a LayerNorm."""
    pulled: Float[Tensor, "classes inner"]
    """``W_O(γ⊙u)``."""
    weight: Float[Tensor, "width inner"]
    """``γ ⊙ W_O``."""

    @classmethod
    def of(cls, space: ClassSpace, output: Output, classes: slice) -> FoldedBlock | None:
        """The fold for some classes; None where more than one norm, or one after the projection, precedes E."""
        steps = space.steps
        norm = steps[0] if steps else None
        if len(steps) > 1 or not isinstance(norm, Norm | None) or output.norm is not None or output.inner is not None:
            return None
        dtype = compute_dtype(space.weight.dtype)
        rows = space.weight[classes].detach().to(dtype)
        rows = rows if norm is None else norm.pull(rows)
        weight = output.weight.detach().to(dtype)
        if output.scale is not None:
            weight = weight * output.scale.to(dtype)[:, None]
        return cls(norm, rows, rows @ weight, weight)

    def at(
        self, added: Float[Tensor, "image query width"], classes: slice, weights: Float[Tensor, "image query"] | None
    ) -> HeadGradients:
        """``mean_q weights[q] ∂z_c/∂y[q]`` for some of the folded classes, counted from the first of them."""
        rows, pulled = self.rows[classes], self.pulled[classes]
        added = added.to(rows.dtype)
        if self.norm is None:
            return HeadGradients(pulled)
        scale = self.norm.inverse_scale(added)
        centered = added - added.mean(dim=-1, keepdim=True) if self.norm.kind == "layer" else added
        unit = centered * scale
        scale = scale if weights is None else scale * weights[..., None].to(scale)
        along = (unit @ rows.T) * (scale / (rows.shape[1] * added.shape[1]))
        return HeadGradients(pulled, scale.mean(dim=1, keepdim=True), unit @ self.weight, along)


@dataclass(frozen=True, eq=False)
class HeadGradients:
    """Gradients of some class logits at the joined heads, ``shared · scale - alongᵀ keys``, as factors.

    Only ``shared`` is as large as classes times channels, and a folded block shares it between all images.
    """

    shared: Float[Tensor, "class inner"] | Float[Tensor, "image class inner"]
    scale: Float[Tensor, "image 1 1"] | None = None
    keys: Float[Tensor, "image query inner"] | None = None
    along: Float[Tensor, "image query class"] | None = None

    def times(
        self, values: Float[Tensor, "image token channel"], channels: slice = slice(None)
    ) -> Float[Tensor, "image token class"]:
        """Products of the gradients with value vectors, of all channels or of one head's."""
        values = values.to(self.shared.dtype)
        products = values @ self.shared[..., channels].transpose(-1, -2)
        if self.scale is None or self.keys is None or self.along is None:
            return products
        return torch.baddbmm(products * self.scale, values @ self.keys[..., channels].mT, self.along, alpha=-1)


def explain_every_class(
    recording: Recording, *, loss: Loss = "logit", query: Query = None
) -> Float[Tensor, "image class token"]:
    """The class gradient of every class, summed over blocks and heads.

    Beside the result, RAM holds the gradients of some classes and images. The gradient of the loss ``cross_entropy``
    differs from that of ``logit`` by a term that all classes share.
    """
    view, image_tokens = recording.view, recording.tokens.image
    shape = (len(recording), view.num_classes, image_tokens.stop - image_tokens.start)
    result = torch.zeros(shape, dtype=recording.dtype)

    def add(images: slice, classes: slice, block: int, gradients: HeadGradients, weight: float) -> None:
        values = recording.activation("values", block)[images, :, image_tokens]
        # With the channels of all heads side by side, one product sums over heads.
        maps = gradients.times(values.transpose(1, 2).flatten(2))
        result[images, classes] += weight * maps.mT.cpu()

    def shift(images: slice, block: int, common: Tensor, weight: float) -> None:
        result[images] += weight * common.sum(dim=1).cpu()[:, None]

    _walk(recording, slice(0, view.num_classes), loss, query, add, shift)
    return result


def explain_classes(
    recording: Recording, classes: slice, *, loss: Loss = "logit", query: Query = None
) -> Float[Tensor, "image class block head token"]:
    """The class gradient of some classes, for every block and head."""
    view, image_tokens = recording.view, recording.tokens.image
    heads, number = view.blocks[0].heads, classes.stop - classes.start
    shape = (len(recording), number, len(view.blocks), heads, image_tokens.stop - image_tokens.start)
    result = torch.zeros(shape, dtype=recording.dtype)

    def add(images: slice, part: slice, block: int, gradients: HeadGradients, weight: float) -> None:
        values = recording.activation("values", block)[images, :, image_tokens]
        rows, width = slice(part.start - classes.start, part.stop - classes.start), values.shape[-1]
        for head in range(heads):
            maps = gradients.times(values[:, head], slice(head * width, (head + 1) * width))
            result[images, rows, block, head] += weight * maps.mT.cpu()

    def shift(images: slice, block: int, common: Tensor, weight: float) -> None:
        result[images, :, block] += weight * common.cpu()[:, None]

    _walk(recording, classes, loss, query, add, shift)
    return result


def _walk(
    recording: Recording,
    classes: slice,
    loss: Loss,
    query: Query,
    add: Callable[[slice, slice, int, HeadGradients, float], None],
    shift: Callable[[slice, int, Tensor, float], None],
) -> None:
    """Call ``add`` with the gradients of some logits at the heads of a block, ``shift`` with the term they share."""
    check_edits(recording)
    if resolved_loss(loss) != "logit":
        recording.view.require_exclusive(f"the loss {loss!r}", "give loss='logit'")
    if loss == "double_softmax":
        raise ClasslensError("loss 'double_softmax' has no form for all classes at once: give logit or cross_entropy")
    view, image_tokens = recording.view, recording.tokens.image
    blocks = range(len(view.blocks))
    for queries in queries_of(recording, query):
        folds = [FoldedBlock.of(queries.at(view, block), view.blocks[block].attn, classes) for block in blocks]
        for images in image_groups(recording, queries):
            for block, fold in zip(blocks, folds, strict=True):
                added = recording.activation("attn_out", block)[images, queries.positions]
                count, rows = added.shape[:2]
                weights = recording.query_weights(images, queries.positions)
                if recording.replaced("attn", block, images, queries.positions) is not None:
                    fold = None  # it is shared between images
                per_class = image_tokens.stop - image_tokens.start + rows
                if fold is None:
                    per_class = rows * (view.blocks[block].attn.weight.shape[1] + view.num_classes)
                for part in slices(classes.stop - classes.start, _SCRATCH // (count * per_class)):
                    chosen = slice(classes.start + part.start, classes.start + part.stop)
                    gradients = (
                        fold.at(added, part, weights) if fold else _unfolded(recording, queries, block, images, chosen)
                    )
                    add(images, chosen, block, gradients, queries.weight)
                if loss == "cross_entropy":
                    # The gradient of the softmax's normalization is the same for every class.
                    target = torch.zeros(count, dtype=torch.int64, device=added.device)
                    logits = queries.at(view, block).project(added)
                    common = loss_gradient(logits, target, "cross_entropy") - loss_gradient(logits, target, "logit")
                    shift(images, block, gradient_of_block(recording, queries, block, images, common), queries.weight)


def _unfolded(recording: Recording, queries: Queries, block: int, images: slice, classes: slice) -> HeadGradients:
    """Gradients of some classes in a block that cannot be folded: each image is repeated for every class."""
    attn = recording.view.blocks[block].attn
    count = classes.stop - classes.start

    def repeated(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.repeat_interleave(count, dim=0)

    replaced = recording.replaced("attn", block, images, queries.positions)
    masks = {} if replaced is None else {name: repeated(mask) for name, mask in vars(replaced).items()}
    added = repeated(recording.activation("attn_out", block)[images, queries.positions])
    assert added is not None
    added = added.to(recording.dtype)
    hot = F.one_hot(torch.arange(classes.start, classes.stop, device=added.device), queries.space.num_classes)
    gradient = hot.to(added.dtype).repeat(len(added) // count, 1)[:, None].expand(-1, added.shape[1], -1)
    weights = repeated(recording.query_weights(images, queries.positions))
    gradient = gradient if weights is None else gradient * weights[..., None].to(gradient)
    pulled = gradient_of_heads(
        attn,
        queries.at(recording.view, block).vjp(added, gradient),
        raw=repeated(recording.before_norm("attn_raw", block, images, queries.positions)),
        joined=repeated(recording.before_norm("attn_joined", block, images, queries.positions)),
        replaced=Replaced(**masks),
    )
    return HeadGradients(pulled.view(-1, count, pulled.shape[1]))
