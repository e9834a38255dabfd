"""The record of an image's decision trajectory: the likeliest classes at each depth, and margins of classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from torch import Tensor

from classlens.core.depth_facts import depth_facts
from classlens.core.trajectories import margin
from classlens.forward.isolation import isolated
from classlens.lens.trace import Trace
from classlens.lens.trajectory import depth_logits


class Decision(NamedTuple):
    """The decision of an image at each depth: 0 is the embeddings, the last the model's output.

    ``trajectory``: top classes and their probabilities ``[depth][place]``. ``margins``: ``[class][depth]`` of each
    class of interest. None where outputs are no classes.
    """

    trajectory: dict[str, Any] | None
    margins: list[list[float]] | None


@isolated
def decisions(trace: Trace, candidates: Int[Tensor, "image place"], k: int) -> list[Decision]:
    """The decision of each image, for its candidate classes; one projection for all of them."""
    if not trace.recording.view.exclusive:
        return [Decision(None, None)] * len(trace)
    return list(_decisions(trace, candidates, k))


def _decisions(trace: Trace, candidates: Int[Tensor, "image place"], k: int) -> Iterator[Decision]:
    for images, logits in depth_logits(trace.recording):
        classes = candidates[images].to(logits.device).unbind(dim=1)
        facts = [depth_facts(logits, target, max(k, 2)) for target in classes]
        top, top_logit = facts[0].top.cpu().numpy(), facts[0].top_logit.cpu().numpy()
        probability = np.exp(top_logit - facts[0].logsumexp.cpu().numpy()[..., None])
        margins = np.stack(
            [
                margin(top, top_logit, target.cpu().numpy(), of_class.logit.cpu().numpy())
                for target, of_class in zip(classes, facts, strict=True)
            ],
            axis=1,
        )
        for places, shares, of_image in zip(top[..., :k], probability[..., :k], margins, strict=True):
            yield Decision({"top": places.tolist(), "probability": shares.tolist()}, of_image.tolist())
