"""The record of an image's decision trajectory: the likeliest classes at each depth, and margins of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from classlens.lens.trace import Trace


def trajectory_records(trace: Trace, k: int) -> list[dict[str, Any]] | None:
    """Top classes and their probabilities ``[depth][place]`` of each image; None where outputs are no classes.

    Depth 0 is the embeddings, the last depth the model's output.
    """
    if not trace.recording.view.exclusive:
        return None
    trajectory = trace.trajectory("predicted", k=k)
    probability = np.exp(trajectory["top_logit"].values - trajectory["logsumexp"].values[..., None])
    return [
        {"top": top.tolist(), "probability": share.tolist()}
        for top, share in zip(trajectory["top"].values, probability, strict=True)
    ]


def class_margins(trace: Trace, classes: Sequence[Int[Tensor, " image"]]) -> list[list[list[float]]] | None:
    """Margins ``[class][image][depth]`` of each class of interest; None where outputs are no classes."""
    if not trace.recording.view.exclusive:
        return None
    return [trace.trajectory(target, k=2)["margin"].values.tolist() for target in classes]
