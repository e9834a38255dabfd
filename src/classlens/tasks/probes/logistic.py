"""Logistic probes, for comparison: scikit-learn's, one of each place, from features that are held in memory."""

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
_NEVER = -1e9


class LogisticFeatures:
    """The features of all training images at some places, from which probes are fitted at the end.

        features = LogisticFeatures(positions=65, width=128, classes=10)
        features.update(x, label)             # [row, place, width], as they come
        probes = features.solve(alpha=1.0)

    Features are scaled to unit variance; ``alpha`` is the inverse of scikit-learn's ``C``. Scores are logits of the
    softmax, and -1e9 for a class without a training image.
    """

    def __init__(self, places: int, width: int, classes: int) -> None:
        self._shape = (places, width, classes)
        self._features: list[Tensor] = []
        self._labels: list[Tensor] = []

    @staticmethod
    def bytes_of(width: int, images: int) -> int:
        """Memory of one place, while it is fitted."""
        return 4 * width * images

    def update(self, features: Float[Tensor, "row place width"], label: Int[Tensor, " row"]) -> None:
        """Add some rows."""
        self._features.append(features.to("cpu", torch.float32))
        self._labels.append(label.cpu())

    def state(self) -> dict[str, Any]:
        """Everything that ``restore`` needs, as tensors."""
        return {"features": self._features, "labels": self._labels}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of other features of this shape."""
        self._features, self._labels = list(state["features"]), list(state["labels"])

    def solve(self, alpha: float = 1.0) -> LinearProbes:
        """Fit them, place by place; raises ClasslensError for fewer than two classes."""
        from sklearn.linear_model import LogisticRegression

        if not alpha > 0:
            raise ClasslensError(f"alpha is {alpha}: give more than 0, as features may depend on each other")
        places, width, classes = self._shape
        label = torch.cat(self._labels).numpy() if self._labels else np.empty(0, dtype=np.int64)
        known = np.unique(label)
        if len(known) < 2:
            raise ClasslensError("logistic probes need training images of two classes at least: give more of them")
        weight, bias = torch.zeros(places, width, classes), torch.zeros(places, classes)
        for place in range(places):
            x = torch.cat([part[:, place] for part in self._features]).double().numpy()
            mean, scale = x.mean(axis=0), x.std(axis=0)
            scale[scale == 0] = 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it has not quite converged
                fitted = LogisticRegression(C=1 / alpha, max_iter=_ITERATIONS).fit((x - mean) / scale, label)
            own, shift = fitted.coef_ / scale, fitted.intercept_
            shift = shift - own @ mean
            if len(known) == 2:  # one row of log odds
                own, shift = np.concatenate([-own / 2, own / 2]), np.concatenate([-shift / 2, shift / 2])
            weight[place, :, known] = torch.as_tensor(own.T, dtype=torch.float32)
            bias[place, known] = torch.as_tensor(shift, dtype=torch.float32)
            bias[place, np.setdiff1d(np.arange(classes), known)] = _NEVER
        return LinearProbes(weight, bias)
