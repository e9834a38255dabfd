"""Ridge probes of many places at once, from sums that one pass over the images leaves behind."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.probes import LinearProbes
from classlens.errors import ClasslensError

# Numbers of features held at once in float64: 128 MiB.
_SCRATCH = 2**24
# Columns of ``XᵀX`` in a strip. Of each strip only what lies on and below the diagonal is kept.
_STRIP = 64


class RidgeSums:
    """All that ridge regression on ±1 targets needs of its training images, as update / merge / solve (law 5).

        sums = RidgeSums(places=50, width=768, classes=1000)
        sums.update(features, label)          # [row, place, width], as they come
        probes = sums.solve(alpha=1.0)

    Of each place the products ``XᵀX`` are kept below their diagonal, in strips of columns, and ``XᵀY`` as sums over
    each class, both in float64 on the CPU. Source: the paper's linear probe.
    """

    def __init__(self, places: int, width: int, classes: int) -> None:
        self.count = torch.zeros(classes, dtype=torch.int64)
        self._strips = [torch.zeros(places, *shape, dtype=torch.float64) for shape in _strips(width)]
        self._sums = torch.zeros(places, classes, width, dtype=torch.float64)

    @staticmethod
    def bytes_of(places: int, width: int, classes: int) -> int:
        """Memory that the sums take."""
        return 8 * places * (sum(rows * columns for rows, columns in _strips(width)) + classes * width)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Places, width and classes."""
        places, classes, width = self._sums.shape
        return places, width, classes

    def update(self, features: Float[Tensor, "row place width"], label: Int[Tensor, " row"]) -> None:
        """Add some rows."""
        width = features.shape[2]
        label = label.cpu()
        self.count += torch.bincount(label, minlength=len(self.count))
        # Classes of these rows, of which there are few, and then one sum over their rows.
        classes, where = label.unique(return_inverse=True)
        step = max(1, _SCRATCH // max(1, width * len(features)))
        for start in range(0, features.shape[1], step):
            part = slice(start, start + step)
            x = features[:, part].transpose(0, 1).to("cpu", torch.float64)
            for number, strip in enumerate(self._strips):
                first = number * _STRIP
                strip[part].baddbmm_(x[:, :, first:].mT, x[:, :, first : first + _STRIP])
            own = torch.zeros(len(x), len(classes), width, dtype=torch.float64).index_add_(1, where, x)
            self._sums[part, classes] += own

    def merge(self, other: RidgeSums) -> RidgeSums:
        """The sums of both; neither is changed."""
        if self.shape != other.shape:
            raise ClasslensError(f"sums of shape {other.shape} cannot be added to those of shape {self.shape}")
        made = RidgeSums(*self.shape)
        made.count = self.count + other.count
        made._strips = [one + two for one, two in zip(self._strips, other._strips, strict=True)]
        made._sums = self._sums + other._sums
        return made

    def solve(self, alpha: float = 1.0, *, dtype: torch.dtype = torch.float32) -> LinearProbes:
        """The probes of ``scikit-learn``'s ``Ridge(alpha)`` with an intercept on targets of ±1, place by place."""
        rows = self._checked([alpha])
        places, width, classes = self.shape
        weight = torch.empty(places, width, classes, dtype=dtype)
        bias = torch.empty(places, classes, dtype=dtype)
        target = 2 * self.count.double() / rows - 1
        for place in range(places):
            mean, gram, cross = self._centred(place)
            gram.diagonal().add_(alpha)
            try:
                factor = torch.linalg.cholesky(gram)
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
                raise ClasslensError(
                    f"alpha {alpha} is too small for these features, some of which are sums of others: give more"
                ) from None
            found = torch.cholesky_solve(cross, factor)
            weight[place] = found
            bias[place] = target - mean @ found
        return LinearProbes(weight, bias)

    def leave_one_out(self, alphas: Sequence[float]) -> LeaveOneOut:
        """What the choice of ``alpha`` by leave-one-out needs; the sums themselves are not needed any longer."""
        rows = self._checked(alphas)
        return LeaveOneOut(
            self.count.double() / rows, rows, [self._centred(place) for place in range(self.shape[0])], alphas
        )

    def _centred(self, place: int) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, ``XᵀX`` and ``XᵀY`` of one place, features and targets about their means."""
        rows = int(self.count.sum())
        width = self._sums.shape[2]
        gram = torch.zeros(width, width, dtype=torch.float64)
        for number, strip in enumerate(self._strips):
            first = number * _STRIP
            gram[first:, first : first + _STRIP] = strip[place]
        gram = gram.tril() + gram.tril(-1).T
        mean = self._sums[place].sum(dim=0) / rows
        gram -= rows * torch.outer(mean, mean)
        # Of targets ±1 about their mean: twice what a class has more than its share of the mean.
        cross = 2 * (self._sums[place] - self.count[:, None] * mean).T
        return mean, gram, cross

    def _checked(self, alphas: Sequence[float]) -> int:
        rows = int(self.count.sum())
        if rows == 0:
            raise ClasslensError("no images were given to train a probe on: give at least one of each class")
        for alpha in alphas:
            if not alpha > 0:
                raise ClasslensError(f"alpha is {alpha}: give more than 0, as features may depend on each other")
        return rows


class LeaveOneOut:
    """Squared errors on training images of probes that have not seen them, in closed form for every ``alpha``.

        choice = sums.leave_one_out([0.1, 1.0, 10.0])
        choice.update(features, label)          # the same rows once more
        probes, alpha = choice.solve()

    From ``XᵀX = Q Λ Qᵀ`` the errors of an image's rows ``I`` left out are ``(1 - H_II)⁻¹ (Y_I - Ŷ_I)`` with
    ``H_II = 1/n + X_I Q (Λ + α)⁻¹ Qᵀ X_Iᵀ``. Source: the closed form of leave-one-out for ridge regression (Hastie,
    Tibshirani and Friedman, *The Elements of Statistical Learning*, section 7.10), for several rows at once where an
    image has several.
    """

    def __init__(
        self, share: Tensor, rows: int, centred: Sequence[tuple[Tensor, Tensor, Tensor]], alphas: Sequence[float]
    ) -> None:
        self.alphas = tuple(alphas)
        self.errors = torch.zeros(len(alphas), len(centred), dtype=torch.float64)
        """Summed over rows and classes, ``[alpha, place]``."""
        self._rows, self._middle = rows, 2 * share - 1
        self._means, self._values, self._vectors, self._along = [], [], [], []
        for mean, gram, cross in centred:
            values, vectors = torch.linalg.eigh(gram)
            self._means.append(mean)
            self._values.append(values.clamp_min(0))
            self._vectors.append(vectors)
            self._along.append(vectors.T @ cross)

    @staticmethod
    def bytes_of(places: int, width: int, classes: int) -> int:
        """Memory that it takes."""
        return 8 * places * width * (width + classes)

    def update(
        self, features: Float[Tensor, "row place width"], label: Int[Tensor, " row"], *, rows_an_image: int = 1
    ) -> None:
        """Add the errors of some images, whose rows follow one another."""
        target = 2 * torch.nn.functional.one_hot(label.cpu(), len(self._middle)).double() - 1 - self._middle
        groups = (-1, rows_an_image)
        same = torch.eye(rows_an_image, dtype=torch.float64)
        for place, vectors in enumerate(self._vectors):
            turned = (features[:, place].to("cpu", torch.float64) - self._means[place]) @ vectors
            own = turned.view(*groups, turned.shape[1])
            for number, alpha in enumerate(self.alphas):
                shrunk = turned / (self._values[place] + alpha)
                missing = (target - shrunk @ self._along[place]).view(*groups, target.shape[1])
                leverage = shrunk.view_as(own) @ own.mT + 1 / self._rows
                self.errors[number, place] += torch.linalg.solve(same - leverage, missing).square().sum()

    def solve(self, *, dtype: torch.dtype = torch.float32) -> tuple[LinearProbes, Float[Tensor, " place"]]:
        """The probes by the ``alpha`` of the least error at each place, and these."""
        alpha = torch.tensor(self.alphas, dtype=torch.float64)[self.errors.argmin(dim=0)]
        weight, bias = [], []
        for place, vectors in enumerate(self._vectors):
            found = vectors @ (self._along[place] / (self._values[place] + alpha[place])[:, None])
            weight.append(found.to(dtype))
            bias.append((self._middle - self._means[place] @ found).to(dtype))
        return LinearProbes(torch.stack(weight), torch.stack(bias)), alpha


def _strips(width: int) -> list[tuple[int, int]]:
    """Rows and columns of each strip."""
    return [(width - first, min(_STRIP, width - first)) for first in range(0, width, _STRIP)]
