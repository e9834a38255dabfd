"""A batch of images as every measure of faithfulness sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.errors import ClasslensError
from classlens.forward.run import run
from classlens.forward.token_subsets import TokenSubsets
from classlens.lens.lens import Lens
from classlens.lens.trace import Trace
from classlens.store.schema import Array
from classlens.tasks.evaluation.cascade import Cascade
from classlens.tasks.evaluation.method_spec import MethodSpec


@dataclass(frozen=True)
class Settings:
    """What the measures are asked for, the same for all images."""

    steps: int | None = None
    """Numbers of tokens kept in token removal, spread evenly from all to one; None for every number."""
    permutations: int = 10
    """Random orders in token removal, from seeds 0, 1, …, each for all images."""
    seed: int = 0


@dataclass(eq=False)
class EvaluationBatch:
    """Some images with their classes of interest; what several measures need of them is made once."""

    lens: Lens
    settings: Settings
    pixels: Float[Tensor, "image channel height width"]
    target: Int[Tensor, " image"]
    shows: Array
    """int8 ``[image, pixel]``: 1 where the mask shows the class, -1 where that is not known."""
    first: int
    """The number of the first image among all."""
    cascade: Callable[[], Cascade]
    trust: bool | None = None
    _maps: dict[str, Float[Tensor, "image token"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def trace(self) -> Trace:
        try:
            return self.lens.trace(self.pixels, batch_size=len(self.pixels))
        except ClasslensError as error:
            raise ClasslensError(f"images {self.first} to {self.first + len(self) - 1}: {error}") from None

    @cached_property
    def shortened(self) -> TokenSubsets:
        return TokenSubsets(self.lens.view, self.pixels, shorten=self.trust)

    @property
    def size(self) -> tuple[int, int]:
        return int(self.pixels.shape[2]), int(self.pixels.shape[3])

    @property
    def grid(self) -> tuple[int, int]:
        return self.trace.recording.tokens.grid

    def importance(self, method: MethodSpec) -> Float[Tensor, "image token"]:
        """The map of each image for its class, made once for all measures."""
        if method.text not in self._maps:
            if method.stored is None:
                self._maps[method.text] = method.importance(self.trace, self.target)
            else:
                self._maps[method.text] = torch.from_numpy(method.stored[self.first : self.first + len(self)])
        return self._maps[method.text]

    @cached_property
    def whole(self) -> Array:
        """int8 ``[image]``: 1 where the untouched image is right."""
        return self.correct(self.trace.recording.logits, torch.arange(len(self)))

    def correct(self, logits: Float[Tensor, "row classes"], image: Int[Tensor, " row"]) -> Array:
        """int8 for each row: 1 where its largest logit is that of the image's class."""
        hits: Array = (logits.argmax(dim=1).cpu() == self.target[image]).to(torch.int8).numpy()
        return hits

    def run(self, pixels: Float[Tensor, "row channel height width"]) -> Float[Tensor, "row classes"]:
        return run(self.lens.view, pixels)
