"""Tables that `classlens inspect` prints: one for each image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from classlens.render.class_record import shown_record
from classlens.text import visible

_CONTRIBUTIONS = ("attention adds", "MLP adds")


def tables(record: dict[str, Any]) -> Iterator[RenderableType]:
    """Predictions, then by block: rank at ``[CLS]``, share of image tokens on top, contributions of both sublayers."""
    exclusive = record["model"]["problem_type"] == "single_label_classification"
    for image in map(shown_record, visible(record["images"])):
        # Names may hold brackets and :codes:, so they are passed as Text and not as markup.
        target = image["target"]["name"]
        yield Text.assemble((image["label"], "bold"), f": {', '.join(map(_prediction, image['predictions']))}")
        rival = "" if image["against"] is None else f", rather than {image['against']['name']!r}"
        kind = "the class " if exclusive else ""
        title = Text(f"How {kind}{target!r} is built{rival}", style="table.title")
        table = Table(title=title, title_justify="left", caption_justify="left")
        attribution, largest = image["attribution"], image["largest"]
        for heading in (
            "block",
            *(
                ("\\[CLS] rank", "image tokens with it on top")
                if exclusive
                else ("\\[CLS] logit", "mean of image tokens")
            ),
            *(_CONTRIBUTIONS if attribution else ()),
        ):
            table.add_column(heading, justify="right")
        for row in image["blocks"]:
            values = _ranks(row) if exclusive else _logits(row)
            contributions = _contributions(attribution, largest, row["block"]) if attribution else ()
            table.add_row(str(row["block"]), *values, *contributions)
        first = f"rank: number of classes that score higher than {target}; " if exclusive else ""
        table.caption = Text(first + _caption(image), style="table.caption")
        yield table


def _prediction(guess: dict[str, Any]) -> str:
    """A class with its probability; an output that has none with its value."""
    value = f"{guess['logit']:.4g}" if guess["probability"] is None else f"{guess['probability']:.1%}"
    return f"{guess['name']} {value}"


def _ranks(row: dict[str, Any]) -> tuple[str, str]:
    return "–" if row["cls_rank"] is None else str(row["cls_rank"]), f"{row['identifiable']:.0%}"


def _logits(row: dict[str, Any]) -> tuple[str, str]:
    return "–" if row["cls_logit"] is None else f"{row['cls_logit']:+.2f}", f"{row['mean_logit']:+.2f}"


def _contributions(attribution: dict[str, Any], largest: dict[str, Any], block: int) -> Iterator[str]:
    """Contributions of both sublayers of a block, with a mark at the largest of all."""
    for name, value in (("attention", sum(attribution["attention"][block])), ("mlp", attribution["mlp"][block])):
        marked = (block, name) == (largest["block"], largest["sublayer"])
        yield f"[bold]{value:+.2f} ◂[/bold]" if marked else f"{value:+.2f}"


def _caption(image: Mapping[str, Any]) -> str:
    attribution, largest = image["attribution"], image["largest"]
    if attribution is None or largest is None:
        return "the head pools by attention, so its logit is no sum of contributions"
    sublayer = "MLP" if largest["sublayer"] == "mlp" else "attention"
    logit = "logit" if image["against"] is None else "difference of the two logits"
    put_in = f", and of what edits put in ({sum(attribution['edit']):+.2f})" if "edit" in attribution else ""
    most = f"; the largest contribution is that of the {sublayer} of block {largest['block']}"
    return (
        f"the {logit}, {attribution['logit']:.2f}, is the sum of all these, of the embeddings "
        f"({attribution['embed']:+.2f}) and of biases ({attribution['bias']:+.2f}){put_in}"
        f"{most if largest['value'] > 0 else '; none of these raises it'}"
    )
