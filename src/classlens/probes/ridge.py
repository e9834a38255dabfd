"""Ridge probes of many places at once, from sums that one pass over the images leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.errors import ClasslensError

# Numbers of products held at once: 128 MiB of float64.
_SCRATCH = 2**24


@dataclass(frozen=True, eq=False)
class Probes:
    """One linear classifier a place (a token position at a site and block): ``logits = features @ weight + bias``."""

    weight: Float[Tensor, "place width classes"]
    bias: Float[Tensor, "place classes"]

    def project(self, features: Float[Tensor, "image place width"]) -> Float[Tensor, "image place classes"]:
        """Scores of each class at each place, near 1 for the class and -1 for others."""
        places = features.transpose(0, 1).to(self.weight.dtype)
        return torch.baddbmm(self.bias[:, None], places, self.weight).transpose(0, 1)


class RidgeSums:
    """All that ridge regression on ±1 targets needs of its training images, as update / merge / solve (law 5).

        sums = RidgeSums(places=50, width=768, classes=1000)
        sums.update(features, labels)          # [image, place, width], as they come
        probes = sums.solve(alpha=1.0)

    Of each place the products ``XᵀX`` are kept as a triangle, and ``XᵀY`` as sums over each class, both in float64
    on the CPU: ``width · (width + 1) / 2 + classes · width`` numbers. Source: the paper's linear probe.
    """

    def __init__(self, places: int, width: int, classes: int) -> None:
        self.count = torch.zeros(classes, dtype=torch.int64)
        self._products = torch.zeros(places, width * (width + 1) // 2, dtype=torch.float64)
        self._sums = torch.zeros(places, classes, width, dtype=torch.float64)
        self._lower = torch.tril_indices(width, width)

    @staticmethod
    def bytes_of(places: int, width: int, classes: int) -> int:
        """Memory that the sums take."""
        return 8 * places * (width * (width + 1) // 2 + classes * width)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Places, width and classes."""
        places, classes, width = self._sums.shape
        return places, width, classes

    def update(self, features: Float[Tensor, "image place width"], label: Int[Tensor, " image"]) -> None:
        """Add some images."""
        width = features.shape[2]
        label = label.cpu()
        self.count += torch.bincount(label, minlength=len(self.count))
        # Classes of the batch, of which there are few, and then one sum over their rows.
        classes, where = label.unique(return_inverse=True)
        step = max(1, _SCRATCH // (width * (width + len(features))))
        for start in range(0, features.shape[1], step):
            part = slice(start, start + step)
            x = features[:, part].transpose(0, 1).to("cpu", torch.float64)
            self._products[part] += (x.mT @ x)[:, self._lower[0], self._lower[1]]
            own = torch.zeros(len(x), len(classes), width, dtype=torch.float64).index_add_(1, where, x)
            self._sums[part, classes] += own

    def merge(self, other: RidgeSums) -> RidgeSums:
        """The sums of both; neither is changed."""
        if self.shape != other.shape:
            raise ClasslensError(f"sums of shape {other.shape} cannot be added to those of shape {self.shape}")
        made = RidgeSums(*self.shape)
        made.count = self.count + other.count
        made._products = self._products + other._products
        made._sums = self._sums + other._sums
        return made

    def solve(self, alpha: float = 1.0, *, dtype: torch.dtype = torch.float32) -> Probes:
        """The probes of ``scikit-learn``'s ``Ridge(alpha)`` with an intercept on targets of ±1, place by place."""
        images = self._checked(alpha)
        places, width, classes = self.shape
        weight = torch.empty(places, width, classes, dtype=dtype)
        bias = torch.empty(places, classes, dtype=dtype)
        target = 2 * self.count / images - 1
        for place in range(places):
            mean, gram, cross = self._centred(place)
            gram.diagonal().add_(alpha)
            found = torch.cholesky_solve(cross, torch.linalg.cholesky(gram))
            weight[place] = found
            bias[place] = target - mean @ found
        return Probes(weight, bias)

    def left_out(
        self,
        features: Float[Tensor, "image place width"],
        label: Int[Tensor, " image"],
        alphas: Sequence[float],
    ) -> Float[Tensor, "alpha place"]:
        """Squared errors of training images by probes that have not seen them, summed over images and classes.

        From ``XᵀX = Q Λ Qᵀ`` the error of image ``i`` left out is ``(y - ŷ) / (1 - h)`` with
        ``h = 1/n + Σ_j (Qᵀx)_j² / (λ_j + α)``: one further pass over the training images serves every ``α``. Source:
        the closed form of leave-one-out for ridge regression (Hastie, Tibshirani and Friedman, section 7.10).
        """
        images = self._checked(min(alphas))
        places, _, classes = self.shape
        target = 2 * torch.nn.functional.one_hot(label.cpu(), classes).double() - 1
        middle = 2 * self.count / images - 1
        found = torch.zeros(len(alphas), places, dtype=torch.float64)
        for place in range(places):
            mean, gram, cross = self._centred(place)
            values, vectors = torch.linalg.eigh(gram)
            turned = (features[:, place].to("cpu", torch.float64) - mean) @ vectors
            along = vectors.T @ cross
            for number, alpha in enumerate(alphas):
                shrunk = turned / (values.clamp_min(0) + alpha)
                own = 1 / images + (shrunk * turned).sum(dim=1)
                missing = (target - middle - shrunk @ along) / (1 - own[:, None])
                found[number, place] = missing.square().sum()
        return found

    def _centred(self, place: int) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, ``XᵀX`` and ``XᵀY`` of one place, features and targets about their means."""
        images = int(self.count.sum())
        width = self._sums.shape[2]
        gram = torch.zeros(width, width, dtype=torch.float64)
        gram[self._lower[0], self._lower[1]] = self._products[place]
        gram = gram + gram.tril(-1).T
        mean = self._sums[place].sum(dim=0) / images
        gram -= images * torch.outer(mean, mean)
        # Of targets ±1 about their mean: twice what a class has more than its share of the mean.
        cross = 2 * (self._sums[place] - self.count[:, None] * mean).T
        return mean, gram, cross

    def _checked(self, alpha: float) -> int:
        images = int(self.count.sum())
        if images == 0:
            raise ClasslensError("no images were given to train a probe on: give at least one of each class")
        if not alpha > 0:
            raise ClasslensError(f"alpha is {alpha}: give more than 0, as features may depend on each other")
        return images
