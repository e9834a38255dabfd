"""Sanity checks: a map has to change with the weights and with the class, and attribution has to be complete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from classlens.core.stats import Statistics, estimate
from classlens.lens.lens import Lens
from classlens.models.view import Tokens
from classlens.store.schema import Array, Variable
from classlens.tasks.evaluation.curves import Floats, mean
from classlens.tasks.evaluation.image_batch import EvaluationBatch, Settings
from classlens.tasks.evaluation.method_spec import MethodSpec
from classlens.tasks.evaluation.metric import CurveAxes, CurvePoint, MetricSchema, Score

_CORRELATION = "Spearman correlation of the two maps over image tokens; NaN where one is constant"


@dataclass(frozen=True)
class Randomization:
    """How alike maps stay while weights are made random from the head down (see ``Cascade``).

    Spearman's rank correlation with the map of the trained model, for the class of the image. A method that shows what
    the model has learned falls to 0. Source: Adebayo et al., *Sanity Checks for Saliency Maps*, NeurIPS 2018.
    """

    name: str = "randomization"
    mosaics: bool = False
    labels: ClassVar[Mapping[str, str]] = {
        "correlation_head_random": "correlation, head random",
        "correlation_all_random": "correlation, all random",
    }
    curve_labels: ClassVar[Mapping[str, str]] = {"correlation": "weights made random, head first"}
    curve_axes: ClassVar[CurveAxes | None] = CurveAxes(
        "share of stages made random", "rank correlation with the trained model's map", unit_range=False
    )
    rounding_error: ClassVar[bool] = False

    def lacks(self, lens: Lens, *, masks: bool, twin: bool) -> str | None:
        return None if twin else f"model {lens.view.name!r} has no random twin, as no library makes it anew by its name"

    def takes(self, method: MethodSpec) -> bool:
        return method.name != "random" and method.stored is None

    def shape(self, lens: Lens, tokens: Tokens, method: MethodSpec, settings: Settings) -> MetricSchema:
        stages = len(lens.view.blocks) + 2
        correlation = Variable(("image", "randomized"), np.dtype("float32"), np.nan, _CORRELATION)
        return MetricSchema(
            {"correlation": correlation}, {"randomized": stages}, {"randomized": np.arange(1, stages + 1)}
        )

    def measure(self, seen: EvaluationBatch, method: MethodSpec) -> dict[str, Array]:
        own, cascade = seen.importance(method), seen.cascade()
        found = []
        for stage in range(1, cascade.stages + 1):
            other = cascade.at(stage).trace(seen.pixels, batch_size=len(seen))
            found.append(rank_correlation(own, method.importance(other, seen.target)))
        return {"correlation": np.stack(found, axis=1).astype(np.float32)}

    def scores(self, data: xr.Dataset, how: Statistics) -> Iterator[Score]:
        for name, place in (("head_random", 0), ("all_random", -1)):
            yield mean(f"correlation_{name}", data["correlation"].values[:, place], how, better="")

    def points(self, data: xr.Dataset, how: Statistics) -> Iterator[CurvePoint]:
        found = estimate(data["correlation"].values.astype(float), how)
        stages = data.sizes["randomized"]
        for number in range(stages):
            yield CurvePoint("correlation", (number + 1) / stages, *(float(part[number]) for part in found[:3]))


@dataclass(frozen=True)
class ClassSensitivity:
    """How much a map differs between classes: one minus Spearman's correlation of the maps for the image's class and
    for another one, drawn for each image.

    0 for a method that knows of no class; 1 where the two maps have nothing in common. Source: the random logit test of
    Sixt, Granz and Landgraf, *When Explanations Lie*, ICML 2020, with rank correlation.
    """

    name: str = "class_sensitivity"
    mosaics: bool = False
    labels: ClassVar[Mapping[str, str]] = {"score": "class sensitivity"}
    curve_labels: ClassVar[Mapping[str, str]] = {}
    curve_axes: ClassVar[CurveAxes | None] = None
    rounding_error: ClassVar[bool] = False

    def lacks(self, lens: Lens, *, masks: bool, twin: bool) -> str | None:
        return None

    def takes(self, method: MethodSpec) -> bool:
        return method.name != "random" and method.stored is None

    def shape(self, lens: Lens, tokens: Tokens, method: MethodSpec, settings: Settings) -> MetricSchema:
        return MetricSchema({"correlation": Variable(("image",), np.dtype("float32"), np.nan, _CORRELATION)}, {}, {})

    def measure(self, seen: EvaluationBatch, method: MethodSpec) -> dict[str, Array]:
        # Drawn by the image's own number, so that none depends on which others are measured with it.
        classes = seen.lens.view.num_classes
        seeds = [[seen.settings.seed, seen.first + number] for number in range(len(seen))]
        steps = [int(np.random.default_rng(seed).integers(1, max(2, classes))) for seed in seeds]
        other = (seen.target + torch.tensor(steps)) % classes
        found = rank_correlation(seen.importance(method), method.importance(seen.trace, other))
        return {"correlation": found.astype(np.float32)}

    def scores(self, data: xr.Dataset, how: Statistics) -> Iterator[Score]:
        yield mean("score", 1 - data["correlation"].values, how, better="")

    def points(self, data: xr.Dataset, how: Statistics) -> Iterator[CurvePoint]:
        yield from ()


@dataclass(frozen=True)
class Completeness:
    """What is missing between the sum of all contributions and the logit, in logits (law 3)."""

    name: str = "completeness"
    mosaics: bool = False
    labels: ClassVar[Mapping[str, str]] = {"missing_logits": "attribution, missing logits"}
    curve_labels: ClassVar[Mapping[str, str]] = {}
    curve_axes: ClassVar[CurveAxes | None] = None
    rounding_error: ClassVar[bool] = True

    def lacks(self, lens: Lens, *, masks: bool, twin: bool) -> str | None:
        return None

    def takes(self, method: MethodSpec) -> bool:
        return method.name == "logit_attribution"

    def shape(self, lens: Lens, tokens: Tokens, method: MethodSpec, settings: Settings) -> MetricSchema:
        note = "|embed + attention + mlp + bias - logit|, in logits"
        return MetricSchema({"missing": Variable(("image",), np.dtype("float32"), np.nan, note)}, {}, {})

    def measure(self, seen: EvaluationBatch, method: MethodSpec) -> dict[str, Array]:
        found = seen.trace.attribution(seen.target)
        total = found["embed"] + found["attention"].sum(("block", "head")) + found["mlp"].sum("block") + found["bias"]
        return {"missing": abs(total - found["logit"]).values.astype(np.float32)}

    def scores(self, data: xr.Dataset, how: Statistics) -> Iterator[Score]:
        yield mean("missing_logits", data["missing"].values, how, better="lower")

    def points(self, data: xr.Dataset, how: Statistics) -> Iterator[CurvePoint]:
        yield from ()


def rank_correlation(
    one: Float[Tensor, "image token"], other: Float[Tensor, "image token"]
) -> Float[ndarray, " image"]:
    """Spearman's correlation of each pair of maps, equal values with their mean rank; NaN for a constant map."""
    from scipy.stats import rankdata

    ranks = [rankdata(maps.double().numpy(), axis=1) for maps in (one, other)]
    first, second = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    found: Floats = np.divide((first * second).sum(axis=1), scale, out=np.full(len(scale), np.nan), where=scale > 0)
    return found
