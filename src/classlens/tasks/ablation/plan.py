"""The tests of an ablation: heads and parts that one half of the images chooses for the other half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from jaxtyping import Bool
from numpy import ndarray

from classlens.core.stats import Statistics
from classlens.tasks.ablation.choice import (
    Pair,
    Parts,
    choosing_half,
    confusion_pairs,
    contrasts,
    most_tipping,
    random_heads,
    random_parts,
    strongest_heads,
)
from classlens.tasks.ablation.scores import HEAD_SCORES
from classlens.tasks.ablation.tables import PairRow, pair_rows

LEAST_CONFUSED = 3
"""Fewest confused images of the choosing half for which what tips them is looked for."""


@dataclass(frozen=True)
class PlanSettings:
    """Number of parts that are ablated together, of random sets of heads, and of confusions; and the seed of both."""

    heads: int
    draws: int
    pairs: int
    seed: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Heads of each class by the score that chose them, random heads, confusions and the parts that tip them."""

    choosing: Bool[ndarray, " image"]
    chosen: dict[int, dict[str, Parts]]
    chance: list[Parts]
    pairs: list[Pair]
    pair_rows: list[PairRow] = field(default_factory=list)
    tipping: dict[Pair, Parts] = field(default_factory=dict)
    controls: dict[Pair, list[Parts]] = field(default_factory=dict)

    @classmethod
    def of(cls, effects: xr.Dataset, classes: Sequence[int], settings: PlanSettings) -> Plan:
        """The heads of some classes, and confusions; ``effects`` are those of measured images with a label."""
        labels = effects["label"].values
        choosing = choosing_half(labels, settings.seed)
        chosen = {
            label: {
                score: strongest_heads(effects[score].values[choosing & (labels == label)], settings.heads)
                for score in HEAD_SCORES
            }
            for label in classes
        }
        blocks, heads = effects.sizes["block"], effects.sizes["head"]
        return cls(
            choosing,
            chosen,
            random_heads(blocks, heads, settings.heads, settings.draws, settings.seed),
            confusion_pairs(
                labels[choosing], effects["predicted"].values[choosing], least=LEAST_CONFUSED, most=settings.pairs
            ),
        )

    @property
    def rivals(self) -> dict[int, tuple[int, ...]]:
        """Classes that each label is confused with."""
        return {label: tuple(rival for of, rival in self.pairs if of == label) for label, _ in self.pairs}

    @property
    def variants(self) -> list[Parts]:
        """All sets of parts, each once."""
        of_classes = [parts for by_score in self.chosen.values() for parts in by_score.values()]
        of_pairs = [parts for pair, tipping in self.tipping.items() for parts in (tipping, *self.controls[pair])]
        return list(dict.fromkeys([*of_classes, *self.chance, *of_pairs]))

    def add_contrast(
        self,
        contrast: xr.Dataset,
        predicted: dict[str, int],
        names: Sequence[str],
        settings: PlanSettings,
        statistics: Statistics,
    ) -> None:
        """Find what tips each confusion, from the contrast of images whose label has rivals."""
        labels = contrast["label"].values
        top = np.array([predicted[str(name)] for name in contrast["image"].values])
        for pair in self.pairs:
            rank = self.rivals[pair.label].index(pair.rival)
            of_rank = contrast.isel(rank=rank)
            parts, values = contrasts(of_rank["head_contrast"].values, of_rank["mlp_contrast"].values)
            confused = (labels == pair.label) & (top == pair.rival)
            right = (labels == pair.label) & (top == pair.label)
            if not right.any():
                continue
            rows = list(pair_rows(pair, parts, values, confused, right, names, statistics))
            self.pair_rows.extend(rows)
            tipping = most_tipping(parts, np.array([row["difference"] for row in rows]), settings.heads)
            if tipping:
                size = contrast.sizes["block"], contrast.sizes["head"]
                self.tipping[pair] = tipping
                self.controls[pair] = random_parts(tipping, *size, settings.draws, [settings.seed, 2, *pair])
