"""Tokens that show the class beside those that show its surroundings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from classlens.analysis.charts import Lines
from classlens.analysis.experiment import Array, Experiment, Found, Key, averages, corrected
from classlens.analysis.experiments.building import rises
from classlens.analysis.store_reader import Need, Part, StoreReader
from classlens.core.stats import Statistics, estimate, flip_signs, shuffle_labels

KEYS = ("quantity", "labeled")
LABELLED = ("class", "context")
_SITES = {"attn_rise": "attn_out", "mlp_rise": "mlp_out"}


def update(part: Part) -> Found:
    store, values, counts = part.store, dict[Key, Array](), dict[Key, Array]()
    image = store.tokens("image")
    labels = part.of("class_token")[:, image]
    for quantity, found, distinct in _quantities(part):
        chosen = found[:, :, image]
        blocks = np.arange(chosen.shape[1])[None, :, None]
        for labeled, wanted in (("class", 1), ("context", 0)):
            mask = labels == wanted
            number = mask.sum(axis=1)[:, None]
            total = (chosen * mask[:, None]).sum(axis=2, dtype=np.float64)
            mean = np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)
            by_rank = quantity == "identifiability"
            values[quantity, labeled] = 1 - mean / store.num_classes if by_rank else mean
            # Blocks side by side, so that one count serves them all.
            placed = (chosen.astype(np.int64) + blocks * distinct)[np.broadcast_to(mask[:, None], chosen.shape)]
            tally = np.bincount(placed, minlength=chosen.shape[1] * distinct)
            counts[quantity, labeled] = tally.reshape(chosen.shape[1], distinct)
    return Found(values, counts)


def _quantities(part: Part) -> Iterator[tuple[str, Array, int]]:
    """Each quantity by token, and how many values it takes: ranks for identifiability, else 0 or 1."""
    yield "identifiability", part.of("rank", site="resid_post"), part.store.num_classes
    for quantity, site in _SITES.items():
        if site in part.store.attrs["sites"]:
            yield quantity, rises(part, site.removesuffix("_out"), "block_input"), 2


def compute(store: StoreReader, found: Found, how: Statistics) -> pd.DataFrame:
    tables = []
    for quantity in dict.fromkeys(key[0] for key in found.values):
        of_class, of_context = (found.values[quantity, labeled] for labeled in LABELLED)
        blocks = range(store.blocks - of_class.shape[1], store.blocks)
        rows = {key: values for key, values in found.values.items() if key[0] == quantity}
        tables.append(averages(KEYS, rows, how, blocks=blocks))
        counts = [found.counts[quantity, labeled] for labeled in LABELLED]
        # A token with a lower rank is more identifiable.
        points = np.arange(counts[0].shape[1]) * (-1 if quantity == "identifiability" else 1)
        difference = pd.DataFrame(
            {
                "quantity": quantity,
                "labeled": "difference",
                "block": list(blocks),
                **estimate(of_class - of_context, how)._asdict(),
                "p": flip_signs(of_class - of_context, how),
                "difference_tokens": [
                    _mean(one, points) - _mean(other, points) for one, other in zip(*counts, strict=True)
                ],
                "p_tokens": [shuffle_labels(one, other, points, how) for one, other in zip(*counts, strict=True)],
            }
        )
        if quantity == "identifiability":
            difference["difference_tokens"] /= store.num_classes
        tables.append(corrected(corrected(difference, ()), (), "p_tokens"))
    return pd.concat(tables, ignore_index=True)


def _mean(counts: Array, points: Array) -> float:
    return float(counts @ points / counts.sum()) if counts.sum() else float("nan")


EXPERIMENT = Experiment(
    name="class_vs_context",
    title="Tokens of the class and of its context",
    about="Image tokens whose patch shows the class beside those whose patch does not: class identifiability, and "
    "share whose class logit attention or MLP raises (against the block's input); an image's mean, then the "
    "mean over images. p: one-sided permutation test of the difference within images (signs flipped); "
    "p_tokens: labels shuffled over all tokens, as in the paper, which takes tokens of an image for "
    "independent.",
    keys=KEYS,
    needs=(
        Need(sites=("resid_post",), masks=True),
        Need(sites=("attn_out",), optional=True),
        Need(sites=("mlp_out",), optional=True),
        Need(sites=("embed",), optional=True),
    ),
    charts=(Lines(value="mean over tokens", color="labeled", rows="quantity", where={"labeled": LABELLED}),),
    update=update,
    compute=compute,
)
