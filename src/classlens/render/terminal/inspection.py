"""Tables that `classlens inspect` prints: one for each image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

_CONTRIBUTIONS = ("attention adds", "MLP adds")


def tables(record: dict[str, Any]) -> Iterator[RenderableType]:
    """Predictions, then by block: rank at ``[CLS]``, share of image tokens on top, contributions of both sublayers."""
    for image in record["images"]:
        # Names may hold brackets and :codes:, so they are passed as Text and not as markup.
        target = image["target"]["name"]
        shares = ", ".join(f"{guess['name']} {guess['probability']:.1%}" for guess in image["predictions"])
        yield Text.assemble((image["name"], "bold"), f": {shares}")
        title = Text(f"How the class {target!r} is built", style="table.title")
        table = Table(title=title, title_justify="left", caption_justify="left")
        attribution, largest = image["attribution"], image["largest"]
        for heading in (
            "block",
            "\\[CLS] rank",
            "image tokens with it on top",
            *(_CONTRIBUTIONS if attribution else ()),
        ):
            table.add_column(heading, justify="right")
        for row in image["blocks"]:
            rank = "–" if row["cls_rank"] is None else str(row["cls_rank"])
            contributions = _contributions(attribution, largest, row["block"]) if attribution else ()
            table.add_row(str(row["block"] + 1), rank, f"{row['identifiable']:.0%}", *contributions)
        table.caption = Text(_caption(target, attribution, largest), style="table.caption")
        yield table


def _contributions(attribution: dict[str, Any], largest: dict[str, Any], block: int) -> Iterator[str]:
    """Contributions of both sublayers of a block, with a mark at the largest of all."""
    for name, value in (("attention", sum(attribution["attention"][block])), ("mlp", attribution["mlp"][block])):
        marked = (block, name) == (largest["block"], largest["sublayer"])
        yield f"[bold]{value:+.2f} ◂[/bold]" if marked else f"{value:+.2f}"


def _caption(target: str, attribution: dict[str, Any] | None, largest: dict[str, Any] | None) -> str:
    if attribution is None or largest is None:
        return f"rank 0: {target} is on top; the head pools by attention, so its logit is no sum of contributions"
    sublayer = "MLP" if largest["sublayer"] == "mlp" else "attention"
    return (
        f"rank 0: {target} is on top; the logit {attribution['logit']:.2f} is the sum of all these, of the "
        f"embeddings ({attribution['embed']:+.2f}) and of biases ({attribution['bias']:+.2f}); the largest "
        f"contribution is that of the {sublayer} of block {largest['block'] + 1}"
    )
