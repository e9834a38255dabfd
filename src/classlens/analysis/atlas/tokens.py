"""The table of image tokens that the class space gives to each class most."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.atlas.stored import AtlasBatch, AtlasStore
from classlens.analysis.atlas.tables import CLASS_TOKENS, TOP_TOKENS
from classlens.tasks.tokens.conditions.registry import CLEAN

_SITE = "resid_post"


class ClassTokens:
    """Collects the best token of each image, and keeps the best images of each class."""

    def __init__(self, store: AtlasStore) -> None:
        self._store = store
        sites = [str(site) for site in store.clean["site"].values] if "site" in store.clean.coords else []
        self._index = {"site": sites.index(_SITE), "block": store.blocks - 1} if _SITE in sites else None
        self._best = pd.DataFrame({"category": [], "image": [], "token": [], "logit": []}, dtype=np.int64)

    def add(self, batch: AtlasBatch) -> None:
        """Take the images of a batch."""
        if self._index is None:
            return
        positions = self._store.image_tokens
        logits = batch.values(CLEAN, "logit", **self._index)[:, positions]
        logits = np.where(np.isnan(logits), -np.inf, logits)
        best = logits.argmax(axis=1)
        rows = {
            "category": self._store.target[batch.images],
            "image": batch.images,
            "token": positions[best],
            "logit": logits.max(axis=1).astype(np.float64),
        }
        both = pd.concat([self._best, pd.DataFrame(rows)]) if len(self._best) else pd.DataFrame(rows)
        both = both[(both["category"] >= 0) & np.isfinite(both["logit"])]
        both = both.sort_values(["category", "logit", "image"], ascending=[True, False, True])
        self._best = both.groupby("category", sort=False).head(TOP_TOKENS)

    def table(self) -> pd.DataFrame:
        """A row for each of the strongest tokens of every class."""
        best = self._best
        return CLASS_TOKENS.frame(
            {
                "category": best["category"].to_numpy(),
                "top": best.groupby("category").cumcount().to_numpy(),
                **self._store.token_columns(best["image"].to_numpy(), best["token"].to_numpy()),
                "logit": best["logit"].to_numpy(),
            }
        )
