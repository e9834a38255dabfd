"""An atlas in a notebook: the strongest heads and MLPs, and the classes with the lowest accuracy."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from classlens.analysis.atlas.atlas import Atlas
from classlens.analysis.atlas.tables import ALL, ATTN, MLP
from classlens.render.notebook.elements import Markup, code, columns, note, percent, result, signed, table

_HEADS, _MLPS, _CLASSES, _TOP = 8, 4, 8, 3


def atlas_html(atlas: Atlas) -> Markup:
    """Model, data and accuracy, then three tables, and the names of all tables."""
    attrs, classes = atlas.attrs, atlas["classes"]
    labeled, correct = int(classes["images"].sum()), int(classes["correct"].sum())
    facts = [
        f"{attrs['atlas_images']:,} images of {attrs.get('data', 'a data set')}",
        f"{len(atlas.class_names):,} classes",
    ]
    facts.append(f"accuracy {percent(correct / labeled)} of {labeled:,} labeled images" if labeled else "no labels")
    pending = attrs["pending_images"]
    left = [note(f"{pending:,} images of the store are not measured.")] if pending else []
    heads = _strongest(atlas, ATTN, _HEADS)
    mlps = _strongest(atlas, MLP, _MLPS)
    header = ("part", "contributions to classes")
    return result(
        f"Atlas of {attrs['model']}",
        note(", ".join(facts), "."),
        *left,
        columns(
            table(f"Heads with the largest mean contributions, {len(heads)} of {len(atlas['heads']):,}", header, heads),
            table(f"MLPs with the largest, {len(mlps)} of {atlas.blocks}", header, mlps),
            _classes(classes),
        ),
        note("Contributions: means over the images of a class, to its logit beyond the mean of all logits."),
        note("Tables: ", *_names(atlas), "."),
        note(code("classlens atlas"), " writes it as linked pages."),
    )


def _strongest(atlas: Atlas, sublayer: str, count: int) -> list[list[str]]:
    """The parts with the largest mean contribution to a class, each with the classes that it writes to most."""
    writers = atlas["writers"]
    rows = writers[(writers["group"] == ALL) & (writers["sublayer"] == sublayer)].dropna(subset="contribution")
    rows = rows[rows["images"] > 0].sort_values("contribution", ascending=False, kind="stable")
    lines = []
    for block, head in rows[["block", "head"]].drop_duplicates().head(count).itertuples(index=False):
        of_part = rows[(rows["block"] == block) & (rows["head"] == head)].head(_TOP)
        pairs = zip(of_part["category"], of_part["contribution"], strict=True)
        written = ", ".join(f"{atlas.class_names[category]} {signed(value)}" for category, value in pairs)
        lines.append([f"head {block}.{head}" if sublayer == ATTN else f"MLP {block}", written])
    return lines


def _classes(classes: pd.DataFrame) -> Markup:
    """Classes with the lowest accuracy; without labels, those that are predicted most."""
    labeled = classes[classes["images"] > 0]
    if len(labeled):
        chosen = labeled.sort_values("accuracy", kind="stable").head(_CLASSES)
        caption = f"Classes with the lowest accuracy, {len(chosen)} of {len(labeled):,}"
        rows = [[row["class_name"], percent(row["accuracy"]), f"{row['images']:,}"] for _, row in chosen.iterrows()]
        return table(caption, ("class", "accuracy", "images"), rows)
    chosen = classes.sort_values("predicted", ascending=False, kind="stable").head(_CLASSES)
    caption = f"Classes that are predicted most, {len(chosen)} of {len(classes):,}"
    return table(
        caption, ("class", "images"), [[row["class_name"], f"{row['predicted']:,}"] for _, row in chosen.iterrows()]
    )


def _names(atlas: Atlas) -> Iterator[object]:
    for number, (name, rows) in enumerate(atlas.tables.items()):
        yield ", " if number else ""
        yield code(f'atlas["{name}"]')
        yield f" ({len(rows):,} rows)" if len(rows) else " (not measured)"
