"""Facts of a token in class space (rank, logit, top-1) and metrics of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.space import ClassSpace
from classlens.core.steps import compute_dtype, logits_at_once
from classlens.errors import not_finite


class Facts(NamedTuple):
    """The reduced logits of tokens.

    ``rank``: number of classes with a strictly larger logit than the class of interest, 0 is best. ``logit``: logit of
    the class of interest. ``top1``: class with the largest logit, the lowest index of a tie.
    """

    rank: Int[Tensor, " rows"]
    logit: Float[Tensor, " rows"]
    top1: Int[Tensor, " rows"]


def facts(logits: Float[Tensor, "rows classes"], target: Int[Tensor, " rows"]) -> Facts:
    """Reduce logits to ``Facts``; overwrites ``logits``, which serve as scratch space.

    Raises ``ClasslensError`` for non-finite logits: a NaN would count as rank 0.
    """
    top = logits.max(dim=1)
    logit = logits.gather(1, target[:, None])
    # The minimum of all logits is NaN or -inf if any logit is; the maximum of each row finds +inf.
    if not bool(torch.isfinite(top.values).all() & torch.isfinite(logits.min())):
        raise not_finite()
    # A sum over floats is vectorized, and exact up to 2**24 classes.
    rank = torch.gt(logits, logit, out=logits).sum(dim=1).to(torch.int64)
    return Facts(rank, logit[:, 0], top.indices)


class BlockFacts:
    """Facts of every site, block by block, computed from the parts of the residual stream.

    Before the division by σ, logits are linear in the token. So the product of the residual stream is the sum of the
    products of its parts, and each part is projected once. Between calls it holds the tokens and one
    ``[rows, classes]`` buffer of products; all other buffers take a few MiB.

    Examples:
        block_facts = BlockFacts(space, target, ("attn_out", "mlp_out", "resid_post"))
        block_facts.feed("embed", x)                            # then, for each block in turn
        for site, block, facts in block_facts.feed("attn_out", attn): ...
    """

    def __init__(
        self,
        space: ClassSpace,
        target: Int[Tensor, " rows"],
        sites: Collection[str],
        space_by_site: Callable[[str, int], ClassSpace] | None = None,
    ) -> None:
        """``space_by_site`` returns the class space of a site and block; None for ``space`` everywhere."""
        self._space = space
        self._target = target
        self._sites = frozenset(sites)
        self._space_by_site = space_by_site
        self._folded = space.fold() if space_by_site is None else None
        # With at most one sublayer of interest, projecting the stream itself takes fewer products.
        sums = self._sites & {"resid_pre", "resid_mid", "resid_post"}
        self._linear = self._folded is not None and {"attn_out", "mlp_out"} <= self._sites and bool(sums)
        self._block = 0
        self._state: Tensor = space.weight.new_empty(0)

    def feed(
        self, site: Literal["embed", "attn_out", "mlp_out"], x: Float[Tensor, "rows width"]
    ) -> Iterator[tuple[str, int, Facts]]:
        """Add the next part of the residual stream; yields ``(site, block, facts)`` of the sites that it completes."""
        if site == "embed":
            self._begin(x)
            yield from self._facts("embed", self._state)
            return
        if site == "attn_out":
            yield from self._facts("resid_pre", self._state)
        yield from self._facts(site, x, added=True)
        self._state = self._state + x
        yield from self._facts("resid_mid" if site == "attn_out" else "resid_post", self._state)
        self._block += site == "mlp_out"

    def _begin(self, x: Float[Tensor, "rows width"]) -> None:
        self._state = x
        # In half precision states are rounded, so their products are not the sums of their parts' products.
        self._linear = self._linear and compute_dtype(x.dtype) == x.dtype
        dtype = compute_dtype(x.dtype)
        classes = self._space.num_classes
        self._step = max(1, logits_at_once(x.device) // classes)
        step = min(self._step, len(x))
        self._product, self._logits = (x.new_empty(step, classes, dtype=dtype) for _ in range(2))
        if self._linear and self._folded is not None:
            self._stream = torch.mm(x.to(dtype), self._folded.matrix)

    def _facts(
        self, site: str, x: Float[Tensor, "rows width"], *, added: bool = False
    ) -> Iterator[tuple[str, int, Facts]]:
        """Facts of ``x`` at a requested site; products of a part that is ``added`` to the stream are added as well."""
        if site not in self._sites:
            return
        if self._space_by_site is not None:
            self._space = self._space_by_site(site, self._block)
        chunks = [
            self._chunk(x[start : start + self._step], slice(start, start + self._step), added=added)
            for start in range(0, len(x), self._step)
        ]
        yield site, self._block, Facts(*(torch.cat(parts) for parts in zip(*chunks, strict=True)))

    def _chunk(self, x: Float[Tensor, "rows width"], rows: slice, *, added: bool) -> Facts:
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
    """A share as hits and total, the same for any split and order of the images.

    Examples:
        >>> first, second = Share.update(torch.tensor([True, False])), Share.update(torch.tensor([True, True]))
        >>> first.merge(second).compute()
        0.75
    """

    hits: int
    total: int

    @classmethod
    def update(cls, hit: Tensor) -> Share:
        return cls(int(hit.sum()), hit.numel())

    def merge(self, other: Share) -> Share:
        return Share(self.hits + other.hits, self.total + other.total)

    def compute(self) -> float:
        """The share between 0 and 1, or NaN for a total of 0."""
        return self.hits / self.total if self.total else float("nan")


def identifiability(rank: Tensor, num_classes: int) -> Tensor:
    """Class identifiability ``1 - rank / num_classes``, in (0, 1]: 1 means the class is on top."""
    return 1 - rank / num_classes
