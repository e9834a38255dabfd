"""Ridge probes from sums over the training images, many at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.probes import LinearProbes
from classlens.errors import ClasslensError

# Maximum number of features converted to float64 at once: 128 MiB.
_SCRATCH = 2**24
# Columns of XᵀX per strip; the part of a strip above the diagonal is not stored.
_STRIP = 64
# Share of the mean square below which the variance of features is rounding.
_CONSTANT = 1e-10
# 2 × float32 eps.
_STEP = 2.0**-22


class RidgeSums:
    """Sums that determine ridge probes with targets ±1, one probe per token: update, merge, solve.

    ``XᵀX`` is stored below its diagonal, in strips of columns, ``XᵀY`` as sums of features per class; both in float64
    on the CPU. Source: the linear probe of Vilas et al., NeurIPS 2023.

    Examples:
        >>> sums = RidgeSums(probes=2, width=3, classes=4)
        >>> sums.update(torch.randn(8, 2, 3), torch.arange(8) % 4)  # [row, probe, width]; called for each batch
        >>> sums.solve(alpha=1.0).weight.shape
        torch.Size([2, 3, 4])
    """

    def __init__(self, probes: int, width: int, classes: int) -> None:
        self.count = torch.zeros(classes, dtype=torch.int64)
        self._strips = [torch.zeros(probes, *shape, dtype=torch.float64) for shape in _strips(width)]
        self._sums = torch.zeros(probes, classes, width, dtype=torch.float64)

    @staticmethod
    def bytes_of(probes: int, width: int, classes: int) -> int:
        """RAM of the sums."""
        return 8 * probes * (sum(rows * columns for rows, columns in _strips(width)) + classes * width)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of probes, width and classes."""
        probes, classes, width = self._sums.shape
        return probes, width, classes

    def update(self, features: Float[Tensor, "row probe width"], label: Int[Tensor, " row"]) -> None:
        """Add rows."""
        width = features.shape[2]
        label = label.cpu()
        self.count += torch.bincount(label, minlength=len(self.count))
        step = max(1, _SCRATCH // max(1, width * len(features)))
        for start in range(0, features.shape[1], step):
            probes = slice(start, start + step)
            x = features[:, probes].transpose(0, 1).to("cpu", torch.float64)
            for number, strip in enumerate(self._strips):
                first = number * _STRIP
                strip[probes].baddbmm_(x[:, :, first:].mT, x[:, :, first : first + _STRIP])
            self._sums[probes].index_add_(1, label, x)

    def merge(self, other: RidgeSums) -> RidgeSums:
        """The sums of both; neither is changed."""
        if self.shape != other.shape:
            raise ClasslensError(f"sums of shape {other.shape} cannot be added to those of shape {self.shape}")
        merged = RidgeSums(*self.shape)
        merged.count = self.count + other.count
        merged._strips = [ours + theirs for ours, theirs in zip(self._strips, other._strips, strict=True)]
        merged._sums = self._sums + other._sums
        return merged

    def state(self) -> dict[str, Any]:
        """Tensors from which ``restore`` continues."""
        return {"count": self.count, "strips": self._strips, "sums": self._sums}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of other sums of this shape."""
        self.count, self._strips, self._sums = state["count"], list(state["strips"]), state["sums"]

    def solve(self, alpha: float = 1.0, *, dtype: torch.dtype = torch.float32) -> LinearProbes:
        """The probes of scikit-learn's ``Ridge(alpha)`` with an intercept, targets ±1.

        Where features are equal for all rows, a probe knows only the shares of classes, and ties are broken in the
        order of classes.
        """
        rows = self._check([alpha])
        probes, width, classes = self.shape
        weight = torch.empty(probes, width, classes, dtype=dtype)
        bias = torch.empty(probes, classes, dtype=dtype)
        target = 2 * self.count.double() / rows - 1
        for probe in range(probes):
            mean, gram, cross = self._centered(probe)
            varies = _varies(gram.trace(), mean, rows)
            gram.diagonal().add_(alpha)
            try:
                factor = torch.linalg.cholesky(gram)
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
                raise ClasslensError(
                    f"alpha {alpha} is too small for these features, some of which depend on others: give more"
                ) from None
            weight[probe], bias[probe] = _probe(torch.cholesky_solve(cross, factor), mean, target, varies)
        return LinearProbes(weight, bias)

    def leave_one_out(self, alphas: Sequence[float]) -> LeaveOneOut:
        """The choice of ``alpha`` by leave-one-out; it does not refer to these sums."""
        rows = self._check(alphas)
        # One probe after another: a decomposition takes as much RAM as the sums of two.
        return LeaveOneOut(self.count.double() / rows, rows, map(self._centered, range(self.shape[0])), alphas)

    def _centered(self, probe: int) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, ``XᵀX`` and ``XᵀY`` of a probe, with features and targets centered."""
        rows = int(self.count.sum())
        width = self._sums.shape[2]
        gram = torch.zeros(width, width, dtype=torch.float64)
        for number, strip in enumerate(self._strips):
            first = number * _STRIP
            gram[first:, first : first + _STRIP] = strip[probe]
        gram = gram.tril() + gram.tril(-1).T
        mean = self._sums[probe].sum(dim=0) / rows
        gram -= rows * torch.outer(mean, mean)
        # A centered target of ±1 is twice the indicator of the class minus twice its share.
        cross = 2 * (self._sums[probe] - self.count[:, None] * mean).T
        return mean, gram, cross

    def _check(self, alphas: Sequence[float]) -> int:
        """Number of rows; raises ClasslensError for no rows, or an ``alpha`` of 0 or less."""
        rows = int(self.count.sum())
        if rows == 0:
            raise ClasslensError("no images were given to train a probe on: give at least one of each class")
        for alpha in alphas:
            if not alpha > 0:
                raise ClasslensError(f"alpha is {alpha}: give more than 0, as features may depend on each other")
        return rows


class LeaveOneOut:
    """Squared leave-one-out errors of ridge probes in closed form, for every ``alpha`` at once.

    From ``XᵀX = Q Λ Qᵀ`` the errors of an image's rows ``I`` left out are ``(1 - H_II)⁻¹ (Y_I - Ŷ_I)`` with
    ``H_II = 1/n + X_I Q (Λ + α)⁻¹ Qᵀ X_Iᵀ``. Source: leave-one-out for ridge regression (Hastie, Tibshirani and
    Friedman, *The Elements of Statistical Learning*, section 7.10), for several rows at once where an image has
    several.

    Examples:
        >>> features, label = torch.randn(8, 2, 3), torch.arange(8) % 4
        >>> sums = RidgeSums(probes=2, width=3, classes=4)
        >>> sums.update(features, label)
        >>> choice = sums.leave_one_out([0.1, 1.0, 10.0])
        >>> choice.update(features, label)  # the same rows once more
        >>> probes, alpha = choice.solve()
    """

    def __init__(
        self,
        share: Tensor,
        rows: int,
        centered: Iterable[tuple[Tensor, Tensor, Tensor]],
        alphas: Sequence[float],
    ) -> None:
        self.alphas = tuple(alphas)
        self._rows, self._target = rows, 2 * share - 1
        self._means, self._values, self._vectors, self._along = [], [], [], []
        for mean, gram, cross in centered:
            values, vectors = torch.linalg.eigh(gram)
            self._means.append(mean)
            self._values.append(values.clamp_min(0))
            self._vectors.append(vectors)
            self._along.append(vectors.T @ cross)
        self.errors = torch.zeros(len(alphas), len(self._means), dtype=torch.float64)
        """Sums over rows and classes, ``[alpha, probe]``."""

    def state(self) -> dict[str, Any]:
        """Tensors and numbers from which ``from_state`` continues."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> LeaveOneOut:
        """The choice with this state."""
        choice = cls.__new__(cls)
        vars(choice).update(state)
        return choice

    @staticmethod
    def bytes_of(probes: int, width: int, classes: int) -> int:
        """RAM of the decompositions."""
        return 8 * probes * width * (width + classes)

    def update(
        self, features: Float[Tensor, "row probe width"], label: Int[Tensor, " row"], *, rows_per_image: int = 1
    ) -> None:
        """Add the errors of images, whose rows are consecutive."""
        target = 2 * torch.nn.functional.one_hot(label.cpu(), len(self._target)).double() - 1 - self._target
        groups = (-1, rows_per_image)
        identity = torch.eye(rows_per_image, dtype=torch.float64)
        for probe, vectors in enumerate(self._vectors):
            rotated = (features[:, probe].to("cpu", torch.float64) - self._means[probe]) @ vectors
            images = rotated.view(*groups, rotated.shape[1])
            for number, alpha in enumerate(self.alphas):
                shrunk = rotated / (self._values[probe] + alpha)
                residuals = (target - shrunk @ self._along[probe]).view(*groups, target.shape[1])
                if rows_per_image == 1:
                    errors = residuals / (1 - 1 / self._rows - (shrunk * rotated).sum(dim=1)).view(-1, 1, 1)
                else:
                    leverage = shrunk.view_as(images) @ images.mT + 1 / self._rows
                    errors = torch.linalg.solve(identity - leverage, residuals)
                self.errors[number, probe] += errors.square().sum()

    def solve(self, *, dtype: torch.dtype = torch.float32) -> tuple[LinearProbes, Float[Tensor, " probe"]]:
        """The probes with the ``alpha`` of the least error, and the chosen ``alpha`` of each."""
        alpha = torch.tensor(self.alphas, dtype=torch.float64)[self.errors.argmin(dim=0)]
        weight, bias = [], []
        for probe, vectors in enumerate(self._vectors):
            mean, values = self._means[probe], self._values[probe]
            solution = vectors @ (self._along[probe] / (values + alpha[probe])[:, None])
            coefficients, shift = _probe(solution, mean, self._target, _varies(values.sum(), mean, self._rows))
            weight.append(coefficients.to(dtype))
            bias.append(shift.to(dtype))
        return LinearProbes(torch.stack(weight), torch.stack(bias)), alpha


def _varies(spread: Tensor, mean: Tensor, rows: int) -> bool:
    """Whether features vary beyond rounding; ``[CLS]`` before the first block is the same for all images."""
    return bool(spread > _CONSTANT * rows * mean @ mean)


def _probe(weight: Tensor, mean: Tensor, target: Tensor, varies: bool) -> tuple[Tensor, Tensor]:
    """Weight and bias; constant features give scores in the order of classes, as ties would put every class on top."""
    if varies:
        return weight, target - mean @ weight
    return torch.zeros_like(weight), target - _STEP * torch.arange(len(target))


def _strips(width: int) -> list[tuple[int, int]]:
    """Rows and columns of each strip."""
    return [(width - first, min(_STRIP, width - first)) for first in range(0, width, _STRIP)]
