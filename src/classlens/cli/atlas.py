"""`classlens atlas`: pages of classes, heads, blocks and hidden units, from a store."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from classlens.cli import options
from classlens.cli.app import app, listed, reporting
from classlens.errors import ClasslensError
from classlens.text import say

if TYPE_CHECKING:
    from classlens.analysis.atlas.atlas import Atlas
    from classlens.data.dataset import Dataset

_MOST_CLASSES = 200
"""Classes that get pages without being chosen."""


@app.command()
@reporting
def atlas(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Store of `classlens measure --attribution`.")],
    out: Annotated[Path, typer.Option(help="Folder for the pages.")] = Path("classlens-atlas"),
    data: Annotated[
        str | None, typer.Option(help="Photos as LAYOUT:PLACE; where they were measured when left out.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Classes with a page, names or indices between commas; all when left out.")
    ] = None,
    heads: Annotated[str | None, typer.Option(help="Heads with a page, such as 4.3,10.0; all when left out.")] = None,
    units: Annotated[
        str, typer.Option(help="Hidden units with a page beside those that class pages name, such as 4.117,9.20.")
    ] = "",
    units_per_class: Annotated[
        int, typer.Option(min=0, max=30, help="Units in each of the two lists of a class page.")
    ] = 10,
    no_photos: Annotated[bool, typer.Option("--no-photos", help="Leave crops of photos out.")] = False,
    tables: Annotated[bool, typer.Option("--tables", help="Write all tables as Parquet files, too.")] = False,
    confidence: options.Confidence = 0.95,
) -> None:
    """Write an atlas: what each head and hidden unit writes to each class, as pages that open from disk."""
    from classlens import __version__
    from classlens.analysis.atlas.atlas import atlas as tables_of
    from classlens.render.atlas_record import choose_pages
    from classlens.render.folders.atlas import write_atlas
    from classlens.render.folders.result_folder import ATLAS, check_replaceable
    from classlens.render.terminal.progress import progress_bar
    from classlens.store.open_store import open_group

    check_replaceable(out, ATLAS)
    if no_photos and data is not None:
        raise ClasslensError("--data and --no-photos were both given: give one of them")
    chosen_heads = None if heads is None else _pairs("head", heads)
    chosen_units = _pairs("unit", units)
    with progress_bar("opening the store") as update:
        result = tables_of(store, confidence=confidence, report=lambda *counts: update("reading the store", *counts))
        pages = choose_pages(
            result.tables,
            classes=_classes(result, classes),
            heads=chosen_heads,
            units=chosen_units,
            units_per_class=units_per_class,
        )
        written = write_atlas(
            result,
            pages,
            out,
            dataset=None if no_photos else _photos(result, data),
            content=None if no_photos else open_group(result.store, "clean")["content"].values,
            version=__version__,
            tables=tables,
            report=update,
        )
    counts = f"{len(pages.classes):,} classes, {len(pages.blocks):,} blocks, {len(pages.heads):,} heads"
    for why, count in (
        ("not measured yet", result.attrs["pending_images"]),
        ("skipped", result.attrs["skipped_images"]),
    ):
        if count:
            say(f"Images: {result.attrs['atlas_images']:,}; {count:,} more are {why}.")
    if result.attrs.get("tokens_stale"):
        say("Patches of heads and units come from other images: run `classlens measure --attribution` to its end.")
    say(f"Pages: {counts}, {len(pages.units):,} units; {written.crops:,} crops of photos")
    if written.missing:
        some = "1 photo is" if len(written.missing) == 1 else f"{len(written.missing):,} photos are"
        say(f"{some} gone, unreadable or changed since they were measured, such as {written.missing[0]!r}.")
    if tables:
        say(f"Tables: {out / 'tables'}")
    say(f"Atlas: {out / 'index.html'}")


def _pairs(kind: str, text: str) -> tuple[tuple[int, int], ...]:
    """Blocks and numbers from a text such as ``4.3,10.0``."""
    matches = [re.fullmatch(r"(\d{1,6})\.(\d{1,9})", part) for part in listed(text)]
    if None in matches or (text and not matches):
        raise ClasslensError(f"--{kind}s {text!r} is not understood: give block and {kind}, such as 4.3,10.0")
    return tuple((int(match[1]), int(match[2])) for match in matches if match is not None)


def _classes(result: Atlas, text: str | None) -> Sequence[int] | None:
    """Indices of the classes with a page; None for all of them."""
    from classlens.models.classes import Classes
    from classlens.render.atlas_record.choice import classes_with_images

    if text is None:
        count = len(classes_with_images(result.tables))
        if count > _MOST_CLASSES:
            raise ClasslensError(
                f"store {result.store!r} has images of {count:,} classes, and pages of more than {_MOST_CLASSES} are "
                "written on request alone: choose some with --classes"
            )
        return None
    names = listed(text)
    if not names:
        raise ClasslensError(f"--classes {text!r} names no class: give names or indices, such as tench,3")
    classes = Classes(tuple(result.class_names))
    return [classes.index(name) for name in names]


def _photos(result: Atlas, data: str | None) -> Dataset:
    """The photos that were measured, or those of another place."""
    from classlens.data.reopen import reopen

    try:
        return reopen(result.attrs, data)
    except ClasslensError as error:
        if data is not None:
            raise
        raise ClasslensError(f"{error}, or --no-photos") from None
