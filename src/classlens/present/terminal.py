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
        for heading in ("block", "\\[CLS] rank", "image tokens with it on top", "attention adds", "MLP adds"):
            table.add_column(heading, justify="right")
        attribution, largest = image["attribution"], image["largest"]
        for row in image["blocks"]:
            block = row["block"]
            adds = {"attention": sum(attribution["attention"][block]), "mlp": attribution["mlp"][block]}
            marked = {
                name: f"[bold]{value:+.2f} ◂[/bold]"
                if (block, name) == (largest["block"], largest["sublayer"])
                else f"{value:+.2f}"
                for name, value in adds.items()
            }
            rank = "–" if row["cls_rank"] is None else str(row["cls_rank"])
            table.add_row(str(block + 1), rank, f"{row['identifiable']:.0%}", marked["attention"], marked["mlp"])
        sublayer = "MLP" if largest["sublayer"] == "mlp" else "attention"
        table.caption = Text(
            f"rank 0: {target} is on top; the logit {attribution['logit']:.2f} is the sum of all these, of the "
            f"embeddings ({attribution['embed']:+.2f}) and of biases ({attribution['bias']:+.2f}); most comes from the "
            f"{sublayer} of block {largest['block'] + 1}",
            style="table.caption",
        )
        yield table
