"""A batch of images as metrics see it; what several metrics need is computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.arrays import Array
from classlens.errors import ClasslensError
from classlens.forward.run import run
from classlens.forward.token_subsets import TokenSubsets
from classlens.lens.lens import Lens
from classlens.lens.trace import Trace
from classlens.tasks.evaluation.cascade import Cascade


@runtime_checkable
class Importance(Protocol):
    """A source of importance maps, ``[image, token]`` of image tokens; higher is more important."""

    @property
    def text(self) -> str:
        """Its name everywhere, such as ``class_gradient:loss=logit``."""
        ...

    @property
    def drawn(self) -> bool:
        """Whether maps are random orders that no image plays a part in."""
        ...

    @property
    def live(self) -> bool:
        """Whether maps can be made for other images, classes and weights than those of the data set."""
        ...

    @property
    def complete(self) -> bool:
        """Whether its values belong to a sum that is the class logit."""
        ...

    def maps(self, batch: ImageBatch) -> Float[Tensor, "image token"]:
        """The maps of a batch for the classes of its images."""
        ...

    def explain(self, trace: Trace, target: Int[Tensor, " image"]) -> Float[Tensor, "image token"]:
        """The maps of any images for any classes; only where ``live``."""
        ...


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of metrics, the same for all images.

    Args:
        steps: numbers of tokens kept in token removal, evenly spread from all to one; None for every number.
        permutations: random orders in token removal, with seeds ``seed, seed + 1, …``.
        seed: random seed of orders, mosaics, other classes and the random twin.
    """

    steps: int | None = None
    permutations: int = 10
    seed: int = 0


@dataclass(eq=False)
class ImageBatch:
    """Images (or mosaics of four) with their classes of interest.

    Args:
        lens: the model that sees them.
        settings: settings of metrics.
        pixels: the images.
        target: class of interest of each image; of each quarter for mosaics.
        shows_class: int8 ``[image, pixel]``, 1 where the mask shows the class, -1 where it is not known.
        first: index of the first image in the data set.
        cascade: the model whose weights become random; made when first used.
        shortens: whether the model runs shortened sequences; tried out when None.
    """

    lens: Lens
    settings: EvaluationSettings
    pixels: Float[Tensor, "image channel height width"]
    target: Int[Tensor, " target"]
    shows_class: Array
    first: int
    cascade: Callable[[], Cascade]
    shortens: bool | None = None
    _maps: dict[str, Float[Tensor, "image token"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def trace(self) -> Trace:
        """One forward pass over the images."""
        try:
            return self.lens.trace(self.pixels, batch_size=len(self.pixels))
        except ClasslensError as error:
            raise ClasslensError(f"images {self.first} to {self.first + len(self) - 1}: {error}") from None

    @cached_property
    def subsets(self) -> TokenSubsets:
        """The images with some of their tokens."""
        subsets = TokenSubsets(self.lens.view, self.pixels, shorten=self.shortens)
        self.shortens = subsets.shortens
        return subsets

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pixels."""
        return int(self.pixels.shape[2]), int(self.pixels.shape[3])

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image tokens."""
        return self.trace.recording.tokens.grid

    def maps(self, importance: Importance) -> Float[Tensor, "image token"]:
        """The importance maps for the classes of the images, made once for all metrics."""
        if importance.text not in self._maps:
            self._maps[importance.text] = importance.maps(self)
        return self._maps[importance.text]

    @cached_property
    def correct_unchanged(self) -> Array:
        """int8 ``[image]``: 1 where the prediction of the unchanged image is its class."""
        return self.correct(self.trace.recording.logits, torch.arange(len(self)))

    def correct(self, logits: Float[Tensor, "row classes"], image: Int[Tensor, " row"]) -> Array:
        """int8 ``[row]``: 1 where the largest logit is that of the image's class."""
        hits: Array = (logits.argmax(dim=1).cpu() == self.target[image]).to(torch.int8).numpy()
        return hits

    def run(self, pixels: Float[Tensor, "row channel height width"]) -> Float[Tensor, "row classes"]:
        """The model's logits for other pixels."""
        return run(self.lens.view, pixels)
