"""Means over the images of each class: all of them, and those with a right and with a wrong prediction."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from classlens.analysis.atlas.stored import AtlasBatch
from classlens.analysis.atlas.tables import GROUPS
from classlens.core.moments import Moments

_OUTCOMES = 3


class ClassMoments:
    """Moments of every class and column, by group of images; see ``GROUPS``."""

    def __init__(self, classes: int, columns: int) -> None:
        self._classes, self._moments = classes, Moments(_OUTCOMES * classes, columns)

    def add(self, batch: AtlasBatch, values: Float[ndarray, "images columns"]) -> None:
        """Take the images of a batch; those without a class are left out."""
        category = batch.category
        self._moments.add(values, np.where(category < 0, -1, batch.outcome * self._classes + category))

    def group(self, name: str) -> Moments:
        """The moments of a group of images, class by class."""
        right, wrong, unknown = (
            self._moments.of(slice(outcome * self._classes, (outcome + 1) * self._classes))
            for outcome in range(_OUTCOMES)
        )
        return {"all": right.merged(wrong).merged(unknown), "right": right, "wrong": wrong}[name]

    def rows(self) -> Iterator[tuple[str, Moments]]:
        """Each group of images with its moments."""
        for name in GROUPS:
            yield name, self.group(name)
