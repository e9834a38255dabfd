"""Ridge probes of many places at once, from sums that one pass over the images leaves behind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.probes import LinearProbes
from classlens.errors import ClasslensError

# Numbers of features held at once in float64: 128 MiB.
_SCRATCH = 2**24
# Columns of ``XᵀX`` in a strip. Of each strip only what lies on and below the diagonal is kept.
_STRIP = 64
# Of the mean square, what is left of features that do not vary.
_ALIKE = 1e-10
# Twice what tells numbers about 1 apart in float32.
_ORDER = 2.0**-22


class RidgeSums:
    """All that ridge regression on ±1 targets needs of its training images, as update / merge / solve (law 5).

        sums = RidgeSums(positions=50, width=768, classes=1000)
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
        step = max(1, _SCRATCH // max(1, width * len(features)))
        for start in range(0, features.shape[1], step):
            part = slice(start, start + step)
            x = features[:, part].transpose(0, 1).to("cpu", torch.float64)
            for number, strip in enumerate(self._strips):
                first = number * _STRIP
                strip[part].baddbmm_(x[:, :, first:].mT, x[:, :, first : first + _STRIP])
            self._sums[part].index_add_(1, label, x)

    def merge(self, other: RidgeSums) -> RidgeSums:
        """The sums of both; neither is changed."""
        if self.shape != other.shape:
            raise ClasslensError(f"sums of shape {other.shape} cannot be added to those of shape {self.shape}")
        made = RidgeSums(*self.shape)
        made.count = self.count + other.count
        made._strips = [one + two for one, two in zip(self._strips, other._strips, strict=True)]
        made._sums = self._sums + other._sums
        return made

    def state(self) -> dict[str, Any]:
        """Everything that ``restore`` needs, as tensors."""
        return {"count": self.count, "strips": self._strips, "sums": self._sums}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of other sums of this shape."""
        self.count, self._strips, self._sums = state["count"], list(state["strips"]), state["sums"]

    def solve(self, alpha: float = 1.0, *, dtype: torch.dtype = torch.float32) -> LinearProbes:
        """The probes of ``scikit-learn``'s ``Ridge(alpha)`` with an intercept on targets of ±1, place by place.

        Where features are the same for all rows, a probe knows the shares of classes alone, and equal ones come in the
        order of the classes.
        """
        rows = self._checked([alpha])
        places, width, classes = self.shape
        weight = torch.empty(places, width, classes, dtype=dtype)
        bias = torch.empty(places, classes, dtype=dtype)
        target = 2 * self.count.double() / rows - 1
        for place in range(places):
            mean, gram, cross = self._centred(place)
            known = _varies(gram.trace(), mean, rows)
            gram.diagonal().add_(alpha)
            try:
                factor = torch.linalg.cholesky(gram)
            except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
                raise ClasslensError(
                    f"alpha {alpha} is too small for these features, some of which are sums of others: give more"
                ) from None
            weight[place], bias[place] = _probe(torch.cholesky_solve(cross, factor), mean, target, known)
        return LinearProbes(weight, bias)

    def leave_one_out(self, alphas: Sequence[float]) -> LeaveOneOut:
        """What the choice of ``alpha`` by leave-one-out needs; the sums themselves are not needed any longer."""
        rows = self._checked(alphas)
        places = self.shape[0]
        # One after another: each takes as much as the sums of two places.
        return LeaveOneOut(self.count.double() / rows, rows, places, map(self._centred, range(places)), alphas)

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
        self,
        share: Tensor,
        rows: int,
        places: int,
        centered: Iterable[tuple[Tensor, Tensor, Tensor]],
        alphas: Sequence[float],
    ) -> None:
        self.alphas = tuple(alphas)
        self.errors = torch.zeros(len(alphas), places, dtype=torch.float64)
        """Summed over rows and classes, ``[alpha, place]``."""
        self._rows, self._middle = rows, 2 * share - 1
        self._means, self._values, self._vectors, self._along = [], [], [], []
        for mean, gram, cross in centered:
            values, vectors = torch.linalg.eigh(gram)
            self._means.append(mean)
            self._values.append(values.clamp_min(0))
            self._vectors.append(vectors)
            self._along.append(vectors.T @ cross)

    def state(self) -> dict[str, Any]:
        """Everything that ``from_state`` needs, as tensors and numbers."""
        return {name.lstrip("_"): value for name, value in vars(self).items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> LeaveOneOut:
        """The choice with this state."""
        choice = cls.__new__(cls)
        public = ("alphas", "errors")
        vars(choice).update({name if name in public else f"_{name}": value for name, value in state.items()})
        return choice

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
                if rows_an_image == 1:
                    left = missing / (1 - 1 / self._rows - (shrunk * turned).sum(dim=1)).view(-1, 1, 1)
                else:
                    leverage = shrunk.view_as(own) @ own.mT + 1 / self._rows
                    left = torch.linalg.solve(same - leverage, missing)
                self.errors[number, place] += left.square().sum()

    def solve(self, *, dtype: torch.dtype = torch.float32) -> tuple[LinearProbes, Float[Tensor, " place"]]:
        """The probes by the ``alpha`` of the least error at each place, and these."""
        alpha = torch.tensor(self.alphas, dtype=torch.float64)[self.errors.argmin(dim=0)]
        weight, bias = [], []
        for place, vectors in enumerate(self._vectors):
            mean, values = self._means[place], self._values[place]
            found = vectors @ (self._along[place] / (values + alpha[place])[:, None])
            own, shift = _probe(found, mean, self._middle, _varies(values.sum(), mean, self._rows))
            weight.append(own.to(dtype))
            bias.append(shift.to(dtype))
        return LinearProbes(torch.stack(weight), torch.stack(bias)), alpha


def _varies(spread: Tensor, mean: Tensor, rows: int) -> bool:
    """Whether features differ at all beyond rounding; ``[CLS]`` before the first block is the same for all images."""
    return bool(spread > _ALIKE * rows * mean @ mean)


def _probe(weight: Tensor, mean: Tensor, middle: Tensor, known: bool) -> tuple[Tensor, Tensor]:
    """Weight and bias. Where features tell nothing, classes are put in order: all of them alike would all be on top."""
    if known:
        return weight, middle - mean @ weight
    return torch.zeros_like(weight), middle - _ORDER * torch.arange(len(middle))


def _strips(width: int) -> list[tuple[int, int]]:
    """Rows and columns of each strip."""
    return [(width - first, min(_STRIP, width - first)) for first in range(0, width, _STRIP)]
