"""Linear estimates of what patching each part would do, from one backward pass for all parts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from classlens.core.steps import compute_dtype
from classlens.forward.differentiable import graph_at
from classlens.forward.edits.edit import editable_point
from classlens.forward.isolation import exclusive
from classlens.forward.sweep import Part, References, record_parts
from classlens.models.view import ModelView

Activations = dict[tuple[str, int], Tensor]
"""``[image, token, column]`` by point and block."""


class EstimateReceiver(ABC):
    """Measures logits, and takes estimates while they are made."""

    @abstractmethod
    def unpatched(self, images: slice, base: Tensor, source: Tensor | None) -> None:
        """Logits of some images and of their sources, if these are images, as they are; estimates follow."""

    @abstractmethod
    def measure(self, images: slice, logits: Tensor) -> Float[Tensor, " image"]:
        """The metric of each image, with its graph."""

    @abstractmethod
    def estimated(self, images: slice, changes: Float[Tensor, "image part"]) -> None:
        """Estimates of how each part, patched, changes the metric of each image."""


def attribution_patching(
    view: ModelView,
    base: Float[Tensor, "image channel height width"],
    source: Float[Tensor, "image channel height width"] | References,
    parts: Sequence[Part],
    receiver: EstimateReceiver,
    *,
    steps: int,
    batch_size: int,
) -> None:
    """For every image and part ``⟨∂M/∂a, a(source) - a(base)⟩``, where ``a`` is what passes at the part.

    With one step, the gradient is that at ``base``. With more, it is the mean over as many points between the pixels
    of ``base`` and ``source``, the midpoints of equal intervals; references take one step. A pass holds at most
    ``batch_size`` images.
    """
    parts = [part.of(view) for part in parts]
    places: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number, part in enumerate(parts):
        editable_point(view, part.point, part.block)
        places[part.point, part.block].append(number)
    with exclusive(view.module):
        for start in range(0, len(base), batch_size):
            images = slice(start, min(start + batch_size, len(base)))
            theirs: Activations = {}
            own: Activations = {}
            of_source = None
            if isinstance(source, Tensor):
                of_source = record_parts(view, source[images], parts, theirs)
            else:
                theirs |= {place: value.expand(len(base[images]), *value.shape) for place, value in source.items()}
            if steps > 1:
                receiver.unpatched(images, record_parts(view, base[images], parts, own), of_source)
            changes = torch.zeros(len(base[images]), len(parts), dtype=compute_dtype(view.dtype))
            for pixels in _path(base[images], source[images] if isinstance(source, Tensor) else None, steps):
                logits, passed = graph_at(view, pixels, places)
                if steps == 1:
                    own = {place: _joined(tensors).detach() for place, tensors in passed.items()}
                    receiver.unpatched(images, logits.detach(), of_source)
                with torch.enable_grad():
                    value = receiver.measure(images, logits).sum()
                gradients = _gradients(value, passed)
                for place, numbers in places.items():
                    gradient, to, at = (x.to(changes.dtype) for x in (gradients.pop(place), theirs[place], own[place]))
                    changes[:, numbers] += _sums(gradient * (to - at), [parts[number] for number in numbers])
            receiver.estimated(images, changes / steps)


def _path(base: Tensor, source: Tensor | None, steps: int) -> Iterator[Tensor]:
    """Pixels at which gradients are taken; between images alone there is a path."""
    if source is None or steps == 1:
        yield base
        return
    for step in range(steps):
        yield base.lerp(source, (step + 0.5) / steps)


def _gradients(value: Tensor, passed: dict[tuple[str, int], list[Tensor]]) -> Activations:
    """Gradients by what passed; 0 where an edit cuts the way to the logits."""
    tensors = [tensor for of_place in passed.values() for tensor in of_place]
    found = iter(torch.autograd.grad(value, tensors, allow_unused=True, materialize_grads=True))
    return {place: _joined([next(found) for _ in of_place]) for place, of_place in passed.items()}


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _sums(product: Float[Tensor, "image token column"], parts: Sequence[Part]) -> Float[Tensor, "image part"]:
    """Sums over the tokens and columns of each part, on the CPU."""
    for dim, ranges in ((1, [part.tokens for part in parts]), (2, [part.columns for part in parts])):
        if all(each == slice(None) for each in ranges):  # once for all parts
            product = product.sum(dim=dim, keepdim=True)
    product = product.cpu()
    return torch.stack([product[:, part.tokens, part.columns].sum(dim=(1, 2)) for part in parts], dim=1)
