"""Parts of a block over which a causal sweep goes, and their labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from classlens.core.arguments import Takes, shown
from classlens.core.arrays import Array
from classlens.errors import ClasslensError, unknown
from classlens.forward.agreement import SUBLAYERS
from classlens.forward.edits.columns import joined_heads
from classlens.forward.edits.selection import head_indices, token_positions, unit_indices
from classlens.forward.means import MEAN_POINTS, Means, means_at, require_means_of
from classlens.forward.sweep import Part
from classlens.models.view import ModelView
from classlens.registry import Registry

PatchedSite = Literal["resid_pre", "attn_out", "mlp_out", "resid_post"]


ChosenParts = Annotated[
    str | int | np.integer | Sequence[int | np.integer | str] | slice | Tensor | Array,
    Takes("'all', indices of heads or units, a group of tokens, or names of sublayers"),
]
"""Heads or units by index, tokens as ``TokenGroup``, sublayers by name, or ``"all"``."""


class SweepParts(ABC):
    """The parts of a block along one dim: ``labels`` of the chosen ones, and the ``part`` of each label."""

    dim: ClassVar[str]
    about: ClassVar[str]

    @abstractmethod
    def labels(self, view: ModelView, count: int, block: int, chosen: ChosenParts) -> Sequence[int | str]:
        """Labels of the chosen parts, of a model that runs on ``count`` tokens; raises ClasslensError for others."""

    @abstractmethod
    def part(self, view: ModelView, block: int, label: int | str, site: PatchedSite) -> Part:
        """The part of a label; ``site`` is that of tokens."""


class Sublayers(SweepParts):
    dim = "sublayer"
    about = "outputs of attention and MLP, all tokens"

    def labels(self, view: ModelView, count: int, block: int, chosen: ChosenParts) -> Sequence[int | str]:
        if isinstance(chosen, str) and chosen == "all":
            return SUBLAYERS
        names = [chosen] if isinstance(chosen, str) else chosen
        if not isinstance(names, list | tuple) or not names:
            raise ClasslensError(f"parts {shown(chosen)} cannot be used: give some of {', '.join(SUBLAYERS)}, or 'all'")
        for name in names:
            if name not in SUBLAYERS:
                raise unknown("parts: sublayer", name, SUBLAYERS)
        return list(dict.fromkeys(names))

    def part(self, view: ModelView, block: int, label: int | str, site: PatchedSite) -> Part:
        return Part(f"{label}_out", block)


class Heads(SweepParts):
    dim = "head"
    about = "outputs of attention heads, all tokens, before an inner norm and the output projection"

    def labels(self, view: ModelView, count: int, block: int, chosen: ChosenParts) -> Sequence[int | str]:
        return list(dict.fromkeys(head_indices(view, chosen)))  # type: ignore[arg-type]

    def part(self, view: ModelView, block: int, label: int | str, site: PatchedSite) -> Part:
        point, channels = joined_heads(view, block)
        return Part(point, block, columns=slice(int(label) * channels, (int(label) + 1) * channels))


class Tokens(SweepParts):
    dim = "token"
    about = "tokens at a site, one at a time"

    def labels(self, view: ModelView, count: int, block: int, chosen: ChosenParts) -> Sequence[int | str]:
        positions: list[int] = token_positions(view, chosen, count).tolist()  # type: ignore[arg-type]
        return positions

    def part(self, view: ModelView, block: int, label: int | str, site: PatchedSite) -> Part:
        return Part(site, block, tokens=slice(int(label), int(label) + 1))


class Units(SweepParts):
    dim = "unit"
    about = "hidden units of the MLP, all tokens"

    def labels(self, view: ModelView, count: int, block: int, chosen: ChosenParts) -> Sequence[int | str]:
        return list(dict.fromkeys(unit_indices(view, block, "mlp", chosen)))  # type: ignore[arg-type]

    def part(self, view: ModelView, block: int, label: int | str, site: PatchedSite) -> Part:
        return Part("mlp_coefficients", block, columns=slice(int(label), int(label) + 1))


SWEEP_PARTS: Registry[SweepParts] = Registry(
    "over", {"sublayers": Sublayers(), "heads": Heads(), "tokens": Tokens(), "units": Units()}
)


def means_of_parts(
    view: ModelView, means: Means, count: int, parts: Iterable[Part]
) -> dict[tuple[str, int], Float[Tensor, "token column"]]:
    """Means at the points of some parts, of a model that runs on ``count`` tokens.

    Raises ClasslensError for means of another model or number of tokens, and for sites that have none.
    """
    require_means_of(view, means)
    if means.tokens.count != count:
        raise ClasslensError(
            f"means of {means.tokens.count} tokens were given to images of {count} tokens: measure means at this size"
        )
    references: dict[tuple[str, int], Tensor] = {}
    for point, block in dict.fromkeys((part.point, part.block) for part in parts):
        if point not in MEAN_POINTS:
            raise ClasslensError(
                f"means have no values at {point}: give site='attn_out' or site='mlp_out', or parts other than tokens"
            )
        references[point, block] = means_at(means, view, point, block).to(view.device, view.dtype)
    return references
