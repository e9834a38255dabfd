"""The table of decisions after each block, for each class."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.atlas.by_class import ClassMoments
from classlens.analysis.atlas.stored import AtlasBatch, AtlasStore
from classlens.analysis.atlas.tables import GROUPS, TRAJECTORY, interval_columns
from classlens.core.intervals import mean_interval, share_interval
from classlens.tasks.tokens.conditions.registry import CLEAN
from classlens.tasks.tokens.schema import TRAJECTORY as STORED


class Trajectories:
    """Collects ranks and log probabilities of the class of each image, at every depth."""

    def __init__(self, store: AtlasStore) -> None:
        self._measured = f"{STORED}_rank" in store.clean
        depths = store.blocks + 1
        self._on_top, self._log_probability = (ClassMoments(store.num_classes, depths) for _ in range(2))

    def add(self, batch: AtlasBatch) -> None:
        """Take the images of a batch."""
        if not self._measured:
            return
        rank, logit, logsumexp = (batch.values(CLEAN, f"{STORED}_{name}") for name in ("rank", "logit", "logsumexp"))
        log_probability = logit.astype(np.float64) - logsumexp
        known = (rank >= 0) & ~np.isnan(log_probability)
        self._on_top.add(batch, np.where(known, rank == 0, np.nan))
        self._log_probability.add(batch, np.where(known, log_probability, np.nan))

    def table(self, confidence: float) -> pd.DataFrame:
        """A row for each class, depth and group with an image."""
        parts = []
        for group in GROUPS:
            on_top, log_probability = self._on_top.group(group), self._log_probability.group(group)
            category, depth = np.nonzero(on_top.count)
            images, share = on_top.count[category, depth], on_top.mean[category, depth]
            mean, squares = log_probability.mean[category, depth], log_probability.squares[category, depth]
            hits = np.rint(share * images).astype(np.int64)
            columns = {
                "category": category,
                "depth": depth,
                "group": np.full(len(category), group, dtype=object),
                "images": images,
                "on_top": hits / images,
                **interval_columns("on_top_", share_interval(hits, images, confidence)),
                "log_probability": mean,
                **interval_columns("log_probability_", mean_interval(mean, squares, images, confidence)),
            }
            parts.append(TRAJECTORY.frame(columns))
        return pd.concat(parts).sort_values(["category", "depth"], kind="stable", ignore_index=True)
