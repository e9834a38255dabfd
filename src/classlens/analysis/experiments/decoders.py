"""What could be read out of tokens, beside what the class embedding reads from them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import Array, Experiment, Found, Key, averages, change_of
from classlens.analysis.store_reader import CLEAN, Need, Part, StoreReader
from classlens.core.stats import Statistics
from classlens.tasks.tokens.conditions.registry import decoder_conditions

KEYS = ("condition", "site", "tokens", "measure")
_SITES = ("attn_out", "mlp_out", "resid_post")


def update(part: Part) -> Found:
    """Of each image: share of tokens with the class on top, and mean identifiability; NaN where nothing reads them."""
    store = part.store
    values: dict[Key, Array] = {}
    for condition in (CLEAN, *decoder_conditions()):
        if not store.has(condition):
            continue
        for site in _SITES:
            if site not in store.attrs["sites"]:
                continue
            rank = part.of("rank", condition, site=site)
            for tokens in store.token_groups:
                own = rank[..., store.tokens(tokens)]
                known = (own >= 0) & part.there(condition)[:, None, None]
                count = known.sum(axis=-1)
                for measure, fact in (("share_on_top", own == 0), ("identifiability", 1 - own / store.num_classes)):
                    total = np.where(known, fact, 0).sum(axis=-1)
                    values[condition, site, tokens, measure] = np.divide(
                        total, count, out=np.full(count.shape, np.nan), where=count > 0
                    )
    return Found(values)


def compute(store: StoreReader, found: Found, how: Statistics) -> pd.DataFrame:
    table = averages(KEYS, found.values, how, blocks=range(store.blocks))
    table["chance"] = np.where(table["measure"] == "share_on_top", 1 / store.num_classes, np.nan)
    changes = []
    for (condition, *rest), values in found.values.items():
        for block in range(store.blocks):
            own = slice(block, block + 1)
            more = values[:, own] - found.values[(CLEAN, *rest)][:, own]
            there = ~np.isnan(more).all()
            changed = change_of(values[:, own], found.values[(CLEAN, *rest)][:, own], how) if there else {}
            changes.append(changed if condition != CLEAN else {})
    columns = ["change", "change_low", "change_high", "p"]
    return table.join(pd.DataFrame(changes, columns=columns, index=table.index))


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
    title="What could be read out, and what the class embedding reads",
    about="Share of tokens with the class on top, and their identifiability, by the class embedding (clean), through a "
    "tuned lens, and by linear probes; change: against the class embedding, image by image, with a two-sided "
    "permutation p. Probes are told the label of each training image, so they find what is there; the class "
    "embedding is what the model has.",
    keys=KEYS,
    needs=(
        Need(either=decoder_conditions()),
        Need(sites=("resid_post",), optional=True),
        Need(sites=("attn_out", "mlp_out"), optional=True),
        Need(cls=True, optional=True),
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
