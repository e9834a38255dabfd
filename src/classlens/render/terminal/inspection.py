"""What `classlens inspect` prints: one compact table an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text


def tables(record: dict[str, Any]) -> Iterator[RenderableType]:
    """Predictions, then by block: rank at ``[CLS]``, share of image tokens on top, what each sublayer adds."""
    for image in record["images"]:
        # Text, not markup: names may hold brackets and :codes:, which are shown as they are.
        target = image["target"]["name"]
        shares = ", ".join(f"{one['name']} {one['probability']:.1%}" for one in image["predictions"])
        yield Text.assemble((image["name"], "bold"), f": {shares}")
        title = Text(f"How the class {target!r} is built", style="table.title")
        table = Table(title=title, title_justify="left", caption_justify="left")
        attribution, largest = image["attribution"], image["largest"]
        for heading in ("block", "\\[CLS] rank", "image tokens with it on top", *(_ADDS if attribution else ())):
            table.add_column(heading, justify="right")
        for row in image["blocks"]:
            rank = "–" if row["cls_rank"] is None else str(row["cls_rank"])
            added = _added(attribution, largest, row["block"]) if attribution else ()
            table.add_row(str(row["block"] + 1), rank, f"{row['identifiable']:.0%}", *added)
        table.caption = Text(_caption(target, attribution, largest), style="table.caption")
        yield table


_ADDS = ("attention adds", "MLP adds")


def _added(attribution: dict[str, Any], largest: dict[str, Any], block: int) -> Iterator[str]:
    """What both sublayers of a block add, the largest of all marked."""
    for name, value in (("attention", sum(attribution["attention"][block])), ("mlp", attribution["mlp"][block])):
        marked = (block, name) == (largest["block"], largest["sublayer"])
        yield f"[bold]{value:+.2f} ◂[/bold]" if marked else f"{value:+.2f}"


def _caption(target: str, attribution: dict[str, Any] | None, largest: dict[str, Any] | None) -> str:
    if attribution is None or largest is None:
        return f"rank 0: {target} is on top; the head pools by attention, so that its logit is no sum of parts"
    sublayer = "MLP" if largest["sublayer"] == "mlp" else "attention"
    return (
        f"rank 0: {target} is on top; the logit {attribution['logit']:.2f} is the sum of all these, of the "
        f"embeddings ({attribution['embed']:+.2f}) and of biases ({attribution['bias']:+.2f}); most comes from the "
        f"{sublayer} of block {largest['block'] + 1}"
    )
