"""The model's decisions without several parts at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.arrays import Array
from classlens.forward.sweep import sweep
from classlens.models.view import ModelView
from classlens.store.schema import Variable
from classlens.tasks.ablation.effects import LogOddsWithout
from classlens.tasks.ablation.references import PartName, Reference, part_of, part_text, references_of
from classlens.tasks.ablation.task import LabeledTask, digest_name


@dataclass(frozen=True, eq=False)
class WithoutTask(LabeledTask):
    """Log odds and top classes with the reference in the place of all parts of each variant together.

    The name of the group depends on ``images``, the names of the images that test.
    """

    reference: Reference
    variants: Sequence[frozenset[PartName]]
    images: Sequence[str]

    @property
    def group(self) -> str:
        return digest_name("held_out", [[variant_text(parts) for parts in self.variants], list(self.images)])

    def variables(self) -> dict[str, Variable]:
        int32, float32 = np.dtype("int32"), np.dtype("float32")
        return {
            "predicted": Variable(("image",), int32, -1, "top class"),
            "log_odds": Variable(("image",), float32, np.nan, "log odds of the label"),
            "log_odds_without": Variable(
                ("image", "variant"), float32, np.nan, "log odds of the label without the parts"
            ),
            "predicted_without": Variable(("image", "variant"), int32, -1, "top class without the parts"),
        }

    def coords(self, view: ModelView) -> dict[str, Array]:
        return {"variant": np.array([variant_text(parts) for parts in self.variants], dtype=object)}

    def of_images(
        self, view: ModelView, pixels: Float[Tensor, "image channel height width"], label: Int[Tensor, " image"]
    ) -> Mapping[str, Array]:
        count = view.tokens((int(pixels.shape[2]), int(pixels.shape[3]))).count
        variants = [tuple(part_of(view, name) for name in sorted(parts)) for parts in self.variants]
        every = [part for parts in variants for part in parts]
        without = LogOddsWithout(label, len(variants))
        references = references_of(view, self.reference, count, every)
        sweep(view, pixels, references, variants, without, batch_size=self.batch_size)
        return {name: value.numpy() for name, value in vars(without).items() if name in self.variables()}


def variant_text(parts: frozenset[PartName]) -> str:
    """Parts as they are shown, in the order of blocks."""
    return " ".join(part_text(name) for name in sorted(parts, key=lambda name: (name[1], name[0], name[2])))
