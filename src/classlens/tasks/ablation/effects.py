"""How much each head matters for the log odds of an image's label, by every score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.arrays import Array
from classlens.core.sweep_metrics import SWEEP_METRICS
from classlens.errors import ClasslensError
from classlens.explain.attribution import attribute, odds_weights, reference_contributions
from classlens.explain.class_gradient import class_gradient_maps
from classlens.forward.attribution_patching import EstimateReceiver, attribution_patching
from classlens.forward.recorder import record
from classlens.forward.sweep import SweepReceiver, sweep
from classlens.models.view import ModelView
from classlens.store.schema import Variable
from classlens.tasks.ablation.references import Reference, head_names, part_of, references_of
from classlens.tasks.ablation.scores import HEAD_SCORES
from classlens.tasks.ablation.task import LabeledTask

EFFECTS = "effects"
_BY_HEAD = ("image", "block", "head")


@dataclass(frozen=True, eq=False)
class EffectsTask(LabeledTask):
    """Effects of putting the reference in the place of each head, one at a time, and scores that predict them."""

    reference: Reference

    @property
    def group(self) -> str:
        return EFFECTS

    def variables(self) -> dict[str, Variable]:
        float32 = np.dtype("float32")
        return {
            "predicted": Variable(("image",), np.dtype("int32"), -1, "top class"),
            "log_odds": Variable(("image",), float32, np.nan, "log odds of the label"),
            "predicted_without": Variable(_BY_HEAD, np.dtype("int32"), -1, "top class without the head"),
            **{name: Variable(_BY_HEAD, float32, np.nan, score.about) for name, score in HEAD_SCORES.items()},
        }

    def coords(self, view: ModelView) -> dict[str, Array]:
        return {"block": np.arange(len(view.blocks)), "head": np.arange(view.blocks[0].heads)}

    def of_images(
        self, view: ModelView, pixels: Float[Tensor, "image channel height width"], label: Int[Tensor, " image"]
    ) -> Mapping[str, Array]:
        count = view.tokens((int(pixels.shape[2]), int(pixels.shape[3]))).count
        variants = [(part_of(view, name),) for name in head_names(view)]
        references = references_of(view, self.reference, count, [part for (part,) in variants])
        without = LogOddsWithout(label, len(variants))
        sweep(view, pixels, references, variants, without, batch_size=self.batch_size)

        estimates = _EstimatedLogOdds(label, len(variants))
        parts_of_heads = [part for (part,) in variants]
        attribution_patching(view, pixels, references, parts_of_heads, estimates, steps=1, batch_size=self.batch_size)
        recording = record(view, pixels, batch_size=len(pixels))
        weights = odds_weights(recording, label.to(view.device))
        parts = attribute(recording, weights)
        contributions = parts.attention.sum(dim=-1) + parts.replaced
        direct = contributions - reference_contributions(recording, weights, list(references.values()))
        shape = direct.shape
        return {
            "predicted": without.predicted.numpy(),
            "log_odds": without.log_odds.numpy(),
            "predicted_without": without.predicted_without.reshape(shape).numpy(),
            "ablation": (without.log_odds[:, None] - without.log_odds_without).reshape(shape).numpy(),
            "attribution": direct.numpy(),
            "attribution_patching": -estimates.changes.reshape(shape).numpy(),
            "class_gradient": class_gradient_maps(recording, label).sum(dim=-1).numpy(),
        }


class LogOddsWithout(SweepReceiver):
    """Log odds of the labels and top classes, as the model is and with each variant patched."""

    def __init__(self, label: Int[Tensor, " image"], variants: int) -> None:
        self.label = label
        self.log_odds = torch.empty(len(label))
        self.predicted = torch.empty(len(label), dtype=torch.int32)
        self.log_odds_without = torch.empty(len(label), variants)
        self.predicted_without = torch.empty(len(label), variants, dtype=torch.int32)

    def unpatched(self, images: slice, base: Tensor, source: Tensor | None) -> None:
        """Take the logits of images as they are."""
        self.log_odds[images] = self._odds(list(range(len(self.label)))[images], base)
        self.predicted[images] = base.argmax(dim=1).cpu().to(torch.int32)

    def patched(self, images: Sequence[int], variants: Sequence[int], logits: Tensor) -> None:
        """Take the logits of images with variants patched."""
        self.log_odds_without[images, variants] = self._odds(images, logits)
        self.predicted_without[images, variants] = logits.argmax(dim=1).cpu().to(torch.int32)

    def _odds(self, images: Sequence[int], logits: Tensor) -> Float[Tensor, " row"]:
        if not bool(torch.isfinite(logits).all()):
            raise ClasslensError(
                "logits are not finite for some images: expected finite weights and pixels; check the images and the "
                "checkpoint for NaN"
            )
        return _log_odds(logits.cpu(), self.label[torch.tensor(images)]).float()


class _EstimatedLogOdds(EstimateReceiver):
    """Linear estimates of how much the log odds of the labels change with each part patched."""

    def __init__(self, label: Int[Tensor, " image"], parts: int) -> None:
        self._label = label
        self.changes = torch.empty(len(label), parts)

    def unpatched(self, images: slice, base: Tensor, source: Tensor | None) -> None:
        """Log odds of images as they are come from elsewhere."""

    def measure(self, images: slice, logits: Tensor) -> Float[Tensor, " image"]:
        """The log odds of each image."""
        return _log_odds(logits.cpu(), self._label[images])  # in float64, which some devices lack

    def estimated(self, images: slice, changes: Float[Tensor, "image part"]) -> None:
        """Take the estimates of some images."""
        self.changes[images] = changes.float()


def _log_odds(logits: Float[Tensor, "row category"], label: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
    odds: Tensor = SWEEP_METRICS["log_odds"].classes(logits.double(), label, label)
    return odds
