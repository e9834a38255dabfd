"""Probes and tuned lenses in a terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import numpy as np
from rich.table import Table

from classlens.core.arrays import Array
from classlens.store.open_store import group_names, open_group
from classlens.store.schema import MEASURED
from classlens.tasks.tokens.conditions.registry import CLEAN, decoder_conditions
from classlens.tasks.tuned_lens.tune import TuneResult

_KINDS = {"cls": r"\[CLS]", "image": "image tokens"}


def accuracy_table(store: str) -> Table:
    """How often the class is on top at ``resid_post`` (or the last site that was probed, or ``embed``) of each block.

    Console().print(accuracy_table("probes/probes.zarr"))
    """
    there = group_names(store)
    conditions = [name for name in (CLEAN, *decoder_conditions()) if name in there]
    found = {name: dict(_shares(store, name)) for name in conditions}
    data = open_group(store)
    site = str(data["site"].values[-1]) if "rank" in data else "embed"
    table = Table(title=f"Share with the class on top, {site}", title_justify="left")
    table.add_column("block", justify="right")
    kinds = list(dict.fromkeys(kind for values in found.values() for kind in values))
    for kind in kinds:
        for name in conditions:
            if kind in found[name]:
                table.add_column(f"{name}\n{_KINDS[kind]}", justify="right")
    shown = [found[name][kind] for kind in kinds for name in conditions if kind in found[name]]
    for block in range(max((len(one) for one in shown), default=0)):
        table.add_row(str(block), *("" if np.isnan(one[block]) else f"{100 * one[block]:.1f} %" for one in shown))
    return table


def _shares(store: str, condition: str) -> Iterator[tuple[str, Array]]:
    data = open_group(store, condition)
    # The embeddings have one block, which is no dim of theirs.
    rank = data["rank"].isel(site=-1).values if "rank" in data else data["embed_rank"].values[:, None]
    rank = rank[data["measured"].values == MEASURED]
    kinds = data["token_kind"].values.astype(object)
    for kind in ("cls", "image"):
        own = rank[:, :, kinds == kind]
        known = own >= 0
        if known.any():
            count = known.sum(axis=(0, 2))
            hits = (own == 0).sum(axis=(0, 2))
            yield kind, np.divide(hits, count, out=np.full(len(hits), np.nan), where=count > 0)


def tuned_table(found: TuneResult) -> Table:
    """How far each block's projection is from the model's output, without and with its translator.

    Console().print(tuned_table(classlens.tune("builtin:cifar10", data, "lens.safetensors")))
    """
    table = Table(
        title=f"KL to the model's output, nats, {found.held_out} held-out images (one answer for all: "
        f"{found.constant:.3f})",
        title_justify="left",
    )
    for name in ("block", "plain", "tuned", "epoch"):
        table.add_column(name, justify="right")
    for row in found.blocks:
        table.add_row(str(row["block"]), f"{row['plain']:.3f}", f"{row['tuned']:.3f}", str(row["epoch"]))
    return table


def tuned_record(found: TuneResult) -> str:
    """The same as one JSON line."""
    record = {"event": "finished", "time": round(time.time(), 3), "file": str(found.file), "blocks": found.blocks}
    more = {"constant": found.constant, "epochs": found.epochs, "images": found.images, "held_out": found.held_out}
    return json.dumps({**record, **more, "seconds": found.seconds})
