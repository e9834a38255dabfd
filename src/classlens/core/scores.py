"""Per-token facts in class space (rank, logit, top-1) and the metrics made of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.maps import compute_dtype
from classlens.core.space import ClassSpace
from classlens.errors import not_finite

# Logits held at once while they are reduced: 4 MiB in float32, small enough to stay in the cache.
_SCRATCH = 2**20


class Facts(NamedTuple):
    """What is kept of a token's logits once they have been reduced.

    ``rank``: classes with a strictly larger logit than the class of interest, 0 is best. ``logit``: of the class of
    interest. ``top1``: the class with the largest logit, the lowest index where several tie.
    """

    rank: Int[Tensor, " rows"]
    logit: Float[Tensor, " rows"]
    top1: Int[Tensor, " rows"]


def facts(logits: Float[Tensor, "rows classes"], target: Int[Tensor, " rows"]) -> Facts:
    """Reduce logits to ``Facts``; ``logits`` is used as scratch space and holds no logits afterwards.

    Raises ``ClasslensError`` for non-finite logits: a NaN would count as rank 0.
    """
    top = logits.max(dim=1)
    logit = logits.gather(1, target[:, None])
    # The least logit of all is NaN or -inf when any is; the greatest of each row is at hand.
    if not bool(torch.isfinite(top.values).all() & torch.isfinite(logits.min())):
        raise not_finite()
    # Counting in the floating-point buffer keeps the sum vectorized; it is exact up to 2**24 classes.
    rank = torch.gt(logits, logit, out=logits).sum(dim=1).to(torch.int64)
    return Facts(rank, logit[:, 0], top.indices)


class BlockFacts:
    """Facts of every site, block by block, as the parts of the residual stream come in.

        made = BlockFacts(space, target, ("attn_out", "mlp_out", "resid_post"))
        made.feed("embed", x)                                   # then, for each block in turn
        for site, block, facts in made.feed("attn_out", attn): ...

    Sums of sublayer outputs are never projected again where both of their parts have been: before the division by σ
    the logits are linear in the token (design, section 8). Held between calls: the tokens, and where products are
    added up one ``[rows, classes]`` buffer; all else is a few MiB, whatever the number of classes and rows.
    """

    def __init__(
        self,
        space: ClassSpace,
        target: Int[Tensor, " rows"],
        sites: Collection[str],
        reading: Callable[[str, int], ClassSpace] | None = None,
    ) -> None:
        """``reading`` gives the space of a site and block where it is not ``space`` everywhere."""
        self._space = space
        self._target = target
        self._sites = frozenset(sites)
        self._reading = reading
        self._folded = space.fold() if reading is None else None
        # With one sublayer or none of interest, projecting the stream itself is fewer products.
        sums = self._sites & {"resid_pre", "resid_mid", "resid_post"}
        self._linear = self._folded is not None and {"attn_out", "mlp_out"} <= self._sites and bool(sums)
        self._block = 0
        self._state: Tensor = space.weight.new_empty(0)

    def feed(
        self, site: Literal["embed", "attn_out", "mlp_out"], x: Float[Tensor, "rows width"]
    ) -> Iterator[tuple[str, int, Facts]]:
        """Take the next part of the residual stream; yields ``(site, block, facts)`` of what it completes."""
        if site == "embed":
            self._begin(x)
            yield from self._made("embed", self._state)
            return
        if site == "attn_out":
            yield from self._made("resid_pre", self._state)
        yield from self._made(site, x, added=True)
        self._state = self._state + x
        yield from self._made("resid_mid" if site == "attn_out" else "resid_post", self._state)
        self._block += site == "mlp_out"

    def _begin(self, x: Float[Tensor, "rows width"]) -> None:
        self._state = x
        # In half precision the model rounds its states: their products are not the sum of those of their parts.
        self._linear = self._linear and compute_dtype(x.dtype) == x.dtype
        dtype = compute_dtype(x.dtype)
        classes = self._space.num_classes
        self._step = max(1, _SCRATCH // classes)
        step = min(self._step, len(x))
        self._product, self._logits = (x.new_empty(step, classes, dtype=dtype) for _ in range(2))
        if self._linear and self._folded is not None:
            self._stream = torch.mm(x.to(dtype), self._folded.matrix)

    def _made(
        self, site: str, x: Float[Tensor, "rows width"], *, added: bool = False
    ) -> Iterator[tuple[str, int, Facts]]:
        """Facts of ``x`` where they are wanted; its products join those of the stream if it is ``added`` to it."""
        if site not in self._sites:
            return
        if self._reading is not None:
            self._space = self._reading(site, self._block)
        found = [
            self._rows(x[start : start + self._step], slice(start, start + self._step), added=added)
            for start in range(0, len(x), self._step)
        ]
        yield site, self._block, Facts(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def _rows(self, x: Float[Tensor, "rows width"], rows: slice, *, added: bool) -> Facts:
        target = self._target[rows]
        if self._folded is None:
            return facts(self._space.project(x), target)
        x = x.to(self._product.dtype)
        if self._linear and not added:
            product = self._stream[rows]
        else:
            product = torch.mm(x, self._folded.matrix, out=self._product[: len(x)])
            if self._linear:
                self._stream[rows] += product
        return facts(self._folded.finish(product, x, self._logits[: len(x)]), target)


class Share(NamedTuple):
    """A share as its sufficient statistic, so that any split and order of the images agrees (law 5).

    share = Share.update(rank == 0)
    share.merge(Share.update(other_rank == 0)).compute()
    """

    hits: int
    total: int

    @classmethod
    def update(cls, hit: Tensor) -> Share:
        return cls(int(hit.sum()), hit.numel())

    def merge(self, other: Share) -> Share:
        return Share(self.hits + other.hits, self.total + other.total)

    def compute(self) -> float:
        """Between 0 and 1, NaN when nothing was counted."""
        return self.hits / self.total if self.total else float("nan")


def identifiability(rank: Tensor, num_classes: int) -> Tensor:
    """Class identifiability ``1 - rank / num_classes``, in (0, 1]: 1 means the class is on top."""
    return 1 - rank / num_classes
