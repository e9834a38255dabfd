"""Means and variances by group, from values that come in batches."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


class Moments:
    """Count, mean and sum of squared deviations of every group and column; NaN are left out.

    Batches are merged by the update of Chan, Golub and LeVeque (1983), which loses no digits where a mean is large
    against its variance. Any split into batches gives the same moments up to rounding.

    Args:
        groups: number of groups.
        columns: number of columns.

    Examples:
        >>> moments = Moments(2, 1)
        >>> moments.add(np.array([[1.0], [3.0], [5.0]]), np.array([0, 0, 1]))
        >>> moments.count.ravel().tolist(), moments.mean.ravel().tolist(), moments.squares.ravel().tolist()
        ([2, 1], [2.0, 5.0], [2.0, 0.0])
    """

    def __init__(self, groups: int, columns: int) -> None:
        self.count: Int[ndarray, "groups columns"] = np.zeros((groups, columns), dtype=np.int64)
        self.mean: Float[ndarray, "groups columns"] = np.zeros((groups, columns))
        self.squares: Float[ndarray, "groups columns"] = np.zeros((groups, columns))

    def add(self, values: Float[ndarray, "rows columns"], groups: Int[ndarray, " rows"]) -> None:
        """Take a batch; rows of group -1 are left out."""
        order = np.argsort(groups, kind="stable")
        order = order[groups[order] >= 0]
        if not len(order):
            return
        rows, members = values[order].astype(np.float64), groups[order]
        starts = np.flatnonzero(np.diff(members, prepend=-1))
        sizes = np.diff(starts, append=len(members))
        present = ~np.isnan(rows)
        rows[~present] = 0
        batch = Moments(0, 0)
        batch.count = np.add.reduceat(present.astype(np.int64), starts, axis=0)
        batch.mean = np.add.reduceat(rows, starts, axis=0) / np.maximum(batch.count, 1)
        deviations = np.where(present, rows - np.repeat(batch.mean, sizes, axis=0), 0)
        batch.squares = np.add.reduceat(deviations**2, starts, axis=0)
        merged = self.of(members[starts]).merged(batch)
        for name in ("count", "mean", "squares"):
            getattr(self, name)[members[starts]] = getattr(merged, name)

    def of(self, groups: Int[ndarray, " chosen"] | slice) -> Moments:
        """The moments of some groups."""
        chosen = Moments(0, 0)
        chosen.count, chosen.mean, chosen.squares = self.count[groups], self.mean[groups], self.squares[groups]
        return chosen

    def merged(self, other: Moments) -> Moments:
        """The moments of the values of both, group by group."""
        both = Moments(0, 0)
        both.count = self.count + other.count
        apart = other.mean - self.mean
        part = other.count / np.maximum(both.count, 1)
        both.mean = self.mean + apart * part
        both.squares = self.squares + other.squares + apart**2 * self.count * part
        return both

    @property
    def defined_mean(self) -> Float[ndarray, "groups columns"]:
        """The means; NaN where there is no value."""
        return np.where(self.count > 0, self.mean, np.nan)
