"""A batch of images for metrics; values that several metrics need are computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.arrays import Array
from classlens.core.pixel_maps import resize, upsample
from classlens.errors import ClasslensError
from classlens.forward.run import run
from classlens.forward.token_subsets import TokenSubsets
from classlens.lens.lens import Lens
from classlens.lens.trace import Trace
from classlens.tasks.evaluation.cascade import Cascade


@runtime_checkable
class Importance(Protocol):
    """A source of importance maps: a value for each image token, higher for a more important token."""

    @property
    def text(self) -> str:
        """Its name on the command line, in stores and in tables, such as ``class_gradient:loss=logit``."""
        ...

    @property
    def drawn(self) -> bool:
        """Whether its maps are random orders, independent of image and class."""
        ...

    @property
    def live(self) -> bool:
        """Whether it has maps for images, classes and weights beyond those of the data set."""
        ...

    @property
    def complete(self) -> bool:
        """Whether its values are terms of a sum that equals the class logit."""
        ...

    @property
    def digest(self) -> str | None:
        """Digest of what makes its maps, where that is not classlens itself."""
        ...

    def maps(self, batch: ImageBatch) -> Float[Tensor, "image token"]:
        """The maps of a batch for the classes of its images."""
        ...

    def native_maps(self, batch: ImageBatch) -> Sequence[Float[Tensor, "row column"]] | None:
        """The same maps at a resolution of their own; None for maps of tokens."""
        ...

    def explain(self, trace: Trace, target: Int[Tensor, " image"]) -> Float[Tensor, "image token"]:
        """The maps of the images of a trace for any classes; only for a ``live`` importance."""
        ...


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of metrics, the same for all images.

    Args:
        steps: numbers of tokens kept in token removal, evenly spread from all to one; ``"all"`` for every number.
        permutations: random orders in token removal, with seeds ``seed, seed + 1, …``.
        seed: random seed of orders, mosaics, other classes and the random twin.
    """

    steps: int | Literal["all"] = "all"
    permutations: int = 10
    seed: int = 0


@dataclass(eq=False)
class ImageBatch:
    """Images, or mosaics of four images, with their classes of interest.

    Args:
        lens: the model.
        settings: settings of metrics.
        pixels: the images, or the mosaics.
        target: class of interest of each image, or of each quarter of each mosaic.
        shows_class: int8 ``[image, pixel]``: 1 where the mask shows the class, -1 where it is unknown.
        first: index of the first image in the data set.
        cascade: makes the model whose weights become random.
        shortens: whether the model runs on shortened sequences; None to try it.
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
    _native: dict[str, Sequence[Float[Tensor, "row column"]] | None] = field(default_factory=dict)

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
        """The model on subsets of the tokens of the images."""
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
        """The importance maps for the classes of the images, computed once for all metrics."""
        if importance.text not in self._maps:
            self._maps[importance.text] = importance.maps(self)
        return self._maps[importance.text]

    def pixel_maps(self, importance: Importance) -> Float[Tensor, "image height width"]:
        """The importance maps at the resolution of the pixels, from their own resolution."""
        native = self.native_maps(importance)
        if native is None:
            return upsample(self.maps(importance), self.grid, self.size)
        return torch.cat([resize(values[None], self.size) for values in native])

    def native_maps(self, importance: Importance) -> Sequence[Float[Tensor, "row column"]] | None:
        """The importance maps at a resolution of their own, computed once; None for maps of tokens."""
        if importance.text not in self._native:
            self._native[importance.text] = importance.native_maps(self)
        return self._native[importance.text]

    def pixel_order(self, importance: Importance) -> Int[Tensor, "image pixel"]:
        """Pixels from the most to the least important, equal ones in the order of the rows."""
        return self.pixel_maps(importance).flatten(1).argsort(dim=1, descending=True, stable=True)

    @cached_property
    def correct_unchanged(self) -> Array:
        """int8 ``[image]``: 1 where the unchanged image is predicted correctly."""
        return self.correct(self.trace.recording.logits, torch.arange(len(self)))

    def correct(self, logits: Float[Tensor, "row category"], image: Int[Tensor, " row"]) -> Array:
        """int8 ``[row]``: 1 where the class of the row's image has the largest logit, or its label one above 0."""
        target = self.target[image]
        hits = logits.argmax(dim=1).cpu() == target
        if self.lens.view.multi_label:
            hits = logits.cpu().gather(1, target[:, None])[:, 0] > 0
        result: Array = hits.to(torch.int8).numpy()
        return result

    @cached_property
    def probability_unchanged(self) -> Array:
        """float64 ``[image]``: the probability of the class of the unchanged image."""
        return self.probability(self.trace.recording.logits)

    def probability(self, logits: Float[Tensor, "image category"]) -> Array:
        """float64 ``[image]``: the probability of the class of each image."""
        probabilities = self.lens.view.probabilities(logits.double())
        assert probabilities is not None, "a run over a data set refuses outputs that have none"
        of_class: Array = probabilities.cpu().gather(1, self.target[:, None])[:, 0].numpy()
        return of_class

    def run(self, pixels: Float[Tensor, "row channel height width"]) -> Float[Tensor, "row category"]:
        """The model's logits for changed pixels."""
        return run(self.lens.view, pixels)
