"""Logistic probes for comparison: scikit-learn's logistic regression, one per token, on features kept in RAM."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.probes import LinearProbes
from classlens.errors import ClasslensError

_ITERATIONS = 1000
# Score of a class without a training image.
_NEVER = -1e9


class LogisticFeatures:
    """Features of all training images, one probe per token: update, solve.

    Features are scaled to unit variance; ``alpha`` is the inverse of scikit-learn's ``C``. Scores are logits of the
    softmax, and -1e9 for a class without a training image.

    Examples:
        >>> features = LogisticFeatures(probes=2, width=3, classes=4)
        >>> features.update(torch.randn(8, 2, 3), torch.arange(8) % 4)  # [row, probe, width]; called for each batch
        >>> features.solve(alpha=1.0).weight.shape
        torch.Size([2, 3, 4])
    """

    def __init__(self, probes: int, width: int, classes: int) -> None:
        self._shape = (probes, width, classes)
        self._features: list[Tensor] = []
        self._labels: list[Tensor] = []

    @staticmethod
    def bytes_of(width: int, images: int) -> int:
        """RAM of the features of one probe."""
        return 4 * width * images

    def update(self, features: Float[Tensor, "row probe width"], label: Int[Tensor, " row"]) -> None:
        """Add rows; they are copied."""
        self._features.append(features.to("cpu", torch.float32, copy=True))
        self._labels.append(label.to("cpu", copy=True))

    def state(self) -> dict[str, Any]:
        """Tensors from which ``restore`` continues."""
        return {"features": self._features, "labels": self._labels}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of other features of this shape."""
        self._features, self._labels = list(state["features"]), list(state["labels"])

    def solve(self, alpha: float = 1.0) -> LinearProbes:
        """Fit the probes one by one; raises ClasslensError for fewer than two classes."""
        from sklearn.linear_model import LogisticRegression

        if not alpha > 0:
            raise ClasslensError(f"alpha is {alpha}: give more than 0, as features may depend on each other")
        probes, width, classes = self._shape
        label = torch.cat(self._labels).numpy() if self._labels else np.empty(0, dtype=np.int64)
        known = np.unique(label)
        if len(known) < 2:
            raise ClasslensError("logistic probes need training images of at least two classes: give more of them")
        weight, bias = torch.zeros(probes, width, classes), torch.zeros(probes, classes)
        for probe in range(probes):
            x = torch.cat([batch[:, probe] for batch in self._features]).double().numpy()
            mean, scale = x.mean(axis=0), x.std(axis=0)
            scale[scale == 0] = 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an optimizer that stopped close to the optimum
                regression = LogisticRegression(C=1 / alpha, max_iter=_ITERATIONS).fit((x - mean) / scale, label)
            coefficients = regression.coef_ / scale
            shift = regression.intercept_ - coefficients @ mean
            if len(known) == 2:  # scikit-learn gives one row of log odds
                coefficients, shift = (np.concatenate([-rows / 2, rows / 2]) for rows in (coefficients, shift))
            weight[probe, :, known] = torch.as_tensor(coefficients.T, dtype=torch.float32)
            bias[probe, known] = torch.as_tensor(shift, dtype=torch.float32)
            bias[probe, np.setdiff1d(np.arange(classes), known)] = _NEVER
        return LinearProbes(weight, bias)
