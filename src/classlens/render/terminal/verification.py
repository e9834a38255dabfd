"""The output of `classlens check`: the parts of a model, and its measured laws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from classlens.core.steps import Norm, Projection, Step, UnitLength
from classlens.lens.verify import Law
from classlens.models.view import ModelView, Readout
from classlens.text import visible

Record = dict[str, Any]
_STEPS: dict[type[Step], str] = {Projection: "projection", UnitLength: "unit length"}


def verification(view: ModelView, laws: Sequence[Law]) -> Record:
    """Tokens, blocks, head, class space and laws of a model, as a JSON record."""
    tokens = view.tokens(view.input_size)
    widths = {block.attn.weight.shape[0] for block in view.blocks}
    return {
        "model": view.name,
        "library": view.library,
        "class": type(view.module).__name__,
        "input_size": list(view.input_size),
        "any_size": view.any_size,
        "prefix": list(tokens.prefix),
        "grid": list(tokens.grid),
        "tokens": tokens.count,
        "blocks": len(view.blocks),
        "width": max(widths),
        "heads": sorted({block.heads for block in view.blocks}),
        "norms": "post" if any(block.attn.norm is not None for block in view.blocks) else "pre",
        "residual_adds": "attention, then MLP" if view.has_mid else "attention and MLP at once",
        "num_classes": view.num_classes,
        "pooling": view.pooling,
        "class_space": [_class_space(readout, tokens.kinds) for readout in view.readouts],
        "laws": [
            {
                "name": law.name,
                "holds": law.holds,
                # JSON has no infinity.
                "error": law.error if law.error is not None and isfinite(law.error) else None,
                "tolerance": law.tolerance,
                "note": law.note,
            }
            for law in laws
        ],
        "holds": all(law.holds for law in laws),
    }


def verification_tables(record: Record) -> Iterator[RenderableType]:
    """The record as two tables for the terminal."""
    record = visible(record)
    parts = Table(title=Text(f"{record['model']} ({record['class']})", style="table.title"), title_justify="left")
    parts.add_column("part", no_wrap=True)
    parts.add_column("")
    rows, columns = record["grid"]
    height, width = record["input_size"]
    size = f"{height}×{width}{' or another size' if record['any_size'] else ''}"
    heads = " or ".join(map(str, record["heads"]))
    prefix = " ".join(record["prefix"]) or "no prefix tokens"
    for name, value in {
        "tokens": f"{record['tokens']}: {prefix}, then a {rows}×{columns} grid for pixels {size}",
        "blocks": f"{record['blocks']} of width {record['width']}, {record['norms']}-norm",
        "residual adds": record["residual_adds"],
        "heads": f"{heads} a block",
        "head": f"{record['num_classes']} classes, pooling {record['pooling']}",
        "class space": "\n".join(record["class_space"]),
    }.items():
        parts.add_row(name, Text(value))
    yield parts
    laws = Table(title="Laws", title_justify="left")
    for heading in ("law", "error", "allowed", ""):
        laws.add_column(heading, justify="right" if heading in ("error", "allowed") else "left")
    for law in record["laws"]:
        error = "–" if law["error"] is None else f"{law['error']:.1e}"
        allowed = "–" if law["error"] is None else f"{law['tolerance']:.1e}"
        sign = Text("✓ ", style="green") if law["holds"] else Text("✗ ", style="bold red")
        laws.add_row(law["name"], error, allowed, sign + Text(law["note"]))
    yield laws


def _class_space(readout: Readout, kinds: Sequence[str]) -> str:
    """A formula such as ``head(LayerNorm(x)) of cls``."""
    space = readout.space
    text = "x"
    for step in space.before:
        text = f"{_name(step)}({text})"
    pooled = kinds[readout.pooled]
    tokens = " ".join(dict.fromkeys(pooled))
    if space.pool is not None:
        text = f"attention pool({text})"
    elif len(pooled) > 1:
        tokens = f"the mean of {tokens} tokens"
    for step in space.after:
        text = f"{_name(step)}({text})"
    weight = "" if readout.weight == 1 else f"{readout.weight:g} · "
    bias = "" if space.bias is not None else ", without a bias"
    return f"{weight}head({text}) of {tokens}{bias}{'' if readout.counts_bias else ', its bias counted once'}"


def _name(step: Step) -> str:
    if isinstance(step, Norm):
        return {"layer": "LayerNorm", "rms": "RMSNorm"}[step.kind]
    return _STEPS[type(step)]
