"""Class scores of other decoders (tuned lens, linear probes) beside those of the class embedding."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import Experiment, Key, Reduction, averages, change_of, mean_of
from classlens.analysis.measured_store import MeasuredStore, Requirement, StoredBatch
from classlens.core.arrays import Array
from classlens.core.stats import Statistics
from classlens.tasks.tokens.conditions.registry import CLEAN, decoder_conditions

KEYS = ("condition", "site", "tokens", "measure")
_SITES = ("attn_out", "mlp_out", "resid_post")
_CHANGE = ["change", "change_low", "change_high", "p"]


def update(batch: StoredBatch) -> Reduction:
    """Share of an image's tokens with the class on top, and their mean identifiability; NaN without decoded tokens."""
    store = batch.store
    values: dict[Key, Array] = {}
    for condition in filter(store.has, (CLEAN, *decoder_conditions())):
        for site in _SITES:
            if site not in store.attrs["sites"]:
                continue
            rank = batch.values("rank", condition, site=site)
            for tokens in store.token_groups:
                ranks = rank[..., store.positions(tokens)]
                decoded = (ranks >= 0) & batch.measured(condition)[:, None, None]
                for measure, fact in (("share_on_top", ranks == 0), ("identifiability", 1 - ranks / store.num_classes)):
                    values[condition, site, tokens, measure] = mean_of(fact, decoded)
    return Reduction(values)


def compute(store: MeasuredStore, reduction: Reduction, statistics: Statistics) -> pd.DataFrame:
    table = averages(KEYS, reduction.values, statistics, blocks=range(store.blocks))
    table["chance"] = np.where(table["measure"] == "share_on_top", 1 / store.num_classes, np.nan)
    changes = []
    for (condition, *key), values in reduction.values.items():
        baseline = reduction.values[CLEAN, *key]
        for block in range(store.blocks):
            decoded, plain = values[:, block, None], baseline[:, block, None]
            known = condition != CLEAN and not np.isnan(decoded - plain).all()
            changes.append(change_of(decoded, plain, statistics) if known else {})
    return table.join(pd.DataFrame(changes, columns=_CHANGE, index=table.index))


def _chart(tokens: str, name: str) -> Lines:
    return Lines(
        value=f"{name} with the class on top",
        suffix=tokens,
        where={"measure": ("share_on_top",), "tokens": (tokens,)},
        rows="site",
        color="condition",
    )


EXPERIMENT = Experiment(
    name="decoders",
    label="Other decoders beside the class embedding",
    about="the class in tokens by probes and a tuned lens, beside the class embedding",
    definition="Share of tokens with the class on top, and their identifiability, by the class embedding (clean), "
    "through a tuned lens, and by linear probes. change: decoder minus class embedding, image by image, with a "
    "two-sided permutation p. Probes are trained with labels, so they show what tokens contain; the class embedding "
    "shows what the model itself decodes.",
    keys=KEYS,
    needs=(
        Requirement(any_condition=decoder_conditions()),
        Requirement(sites=("resid_post",), optional=True),
        Requirement(sites=("attn_out", "mlp_out"), optional=True),
        Requirement(cls=True, optional=True),
    ),
    charts=(
        _chart("image", "image tokens"),
        _chart("cls", "[CLS]"),
        Lines(
            value="class identifiability",
            suffix="identifiability",
            where={"measure": ("identifiability",), "site": ("resid_post",)},
            rows="tokens",
            color="condition",
        ),
    ),
    update=update,
    compute=compute,
)
