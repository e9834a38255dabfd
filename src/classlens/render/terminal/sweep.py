"""Tables that `classlens sweep` prints: the largest effects of each image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from classlens.render.sweep_words import (
    agreement_words,
    direction_words,
    equal,
    equal_words,
    estimate_words,
    metric_name,
    metric_words,
    number,
    percent,
    prediction_words,
)
from classlens.text import visible

SHOWN = 10


def tables(record: dict[str, Any]) -> Iterator[RenderableType]:
    """Both decisions of a pair, then its largest effects; a sentence where no effect is defined."""
    estimate = estimate_words(record)
    for image in visible(record["images"]):
        # Names may hold brackets and :codes:, so they are passed as Text and not as markup.
        for which, name in (("clean", image["label"]), ("corrupt", image["corrupt_label"])):
            words = f": {metric_name(record)} {number(image[which])}, {prediction_words(image['predictions'][which])}"
            yield Text.assemble((name, "bold"), f" ({which}){words}")
        if equal(image):
            yield Text(f"{equal_words(record, image)}.")
            continue
        title = f"Largest effects of {record['over']} on the {metric_words(record, image)}"
        estimated = "estimated " if estimate else ""
        if estimate:
            title += f": {estimate}"
        table = Table(title=Text(title, style="table.title"), title_justify="left", caption_justify="left")
        table.add_column("part")
        table.add_column(f"{estimated}effect", justify="right")
        table.add_column(f"{estimated}{metric_name(record)}", justify="right")
        for part in image["largest"][:SHOWN]:
            table.add_row(Text(part["name"]), percent(part["effect"]), number(part["patched"]))
        table.caption = Text(
            f"{direction_words(record)}; effect: how far this moves the {metric_name(record)} from that of one image "
            f"(0%) to that of the other (100%)",
            style="table.caption",
        )
        yield table
        if image["agreement"] is not None:
            yield Text(f"{agreement_words(record, image)}.")
