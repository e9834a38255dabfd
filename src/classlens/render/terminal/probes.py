"""Probes and tuned lenses, as tables and as a record."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import numpy as np
from rich.table import Table

from classlens.core.arrays import Array
from classlens.core.stats import ratio
from classlens.store.open_store import group_names, open_group
from classlens.store.schema import MEASURED
from classlens.tasks.tokens.conditions.registry import CLEAN, decoder_conditions
from classlens.tasks.tokens.schema import require_condition
from classlens.tasks.tuned_lens.tune import TuneResult

_TOKENS = {"cls": r"\[CLS]", "image": "image tokens"}


def accuracy_table(store: str) -> Table:
    """Share of tokens with the class on top, block by block, for the class embedding and every other decoder.

    ``Console().print(accuracy_table("probes/probes.zarr"))``

    The site is ``resid_post``, or the last one that was probed, or ``embed``.
    """
    groups = group_names(store)
    conditions = [name for name in (CLEAN, *decoder_conditions()) if name in groups]
    shares = {name: dict(_shares(store, name)) for name in conditions}
    data = open_group(store, CLEAN)
    site = str(data["site"].values[-1]) if "rank" in data else "embed"
    table = Table(title=f"Share with the class on top, {site}", title_justify="left")
    table.add_column("block", justify="right")
    columns = []
    for tokens in dict.fromkeys(tokens for by_tokens in shares.values() for tokens in by_tokens):
        for name in conditions:
            if tokens in shares[name]:
                table.add_column(f"{name}\n{_TOKENS[tokens]}", justify="right")
                columns.append(shares[name][tokens])
    for block in range(max((len(column) for column in columns), default=0)):
        table.add_row(
            str(block), *("" if np.isnan(column[block]) else f"{100 * column[block]:.1f} %" for column in columns)
        )
    return table


def _shares(store: str, condition: str) -> Iterator[tuple[str, Array]]:
    """For each group of tokens, the share with the class on top by block."""
    data = open_group(store, condition)
    require_condition(store, data)
    # Embeddings have one block, and no dim for it.
    rank = data["rank"].isel(site=-1).values if "rank" in data else data["embed_rank"].values[:, None]
    rank = rank[data["measured"].values == MEASURED]
    kinds = data["token_kind"].values.astype(object)
    for tokens in ("cls", "image"):
        ranks = rank[:, :, kinds == tokens]
        decoded = ranks >= 0
        if decoded.any():
            number = decoded.sum(axis=(0, 2))
            hits = (ranks == 0).sum(axis=(0, 2))
            yield tokens, ratio(hits, number)


def tuned_table(result: TuneResult) -> Table:
    """KL divergence from each block's projection to the model's output, without and with the tuned lens.

    ``Console().print(tuned_table(classlens.tune("builtin:cifar10", data, "lens.safetensors")))``
    """
    table = Table(
        title=f"KL to the model's output, nats, {result.held_out} held-out images (one answer for all: "
        f"{result.constant:.3f})",
        title_justify="left",
    )
    for name in ("block", "plain", "tuned", "epoch"):
        table.add_column(name, justify="right")
    for row in result.blocks:
        table.add_row(str(row["block"]), f"{row['plain']:.3f}", f"{row['tuned']:.3f}", str(row["epoch"]))
    return table


def tuned_record(result: TuneResult) -> str:
    """The result as one JSON line."""
    facts = {name: getattr(result, name) for name in ("blocks", "constant", "epochs", "images", "held_out", "seconds")}
    return json.dumps({"event": "finished", "time": round(time.time(), 3), "file": str(result.file), **facts})
