"""The record of a comparison and the page's own code as one HTML text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from classlens.render.html.page import assembled, json_element
from classlens.text import visible


class SideLinks(NamedTuple):
    """Addresses of a store's pages, relative to the page of the comparison.

    Args:
        folder: folder of the store's pages, such as ``"../s0/"``.
        photos: positions of images that have a page; None for all, an empty list for none.
        thumbs: positions of images that have a thumbnail; likewise.
        heads: whether heads have pages.
    """

    folder: str
    photos: Sequence[int] | None = None
    thumbs: Sequence[int] | None = None
    heads: bool = False


def compare_page(
    record: Mapping[str, Any],
    *,
    version: str,
    links: tuple[SideLinks, SideLinks] | None = None,
    site: str | None = None,
) -> str:
    """The page of ``comparison_record``, complete in itself.

    ``compare_page(comparison_record(comparison), version="0.1.0")``

    ``site``: the element of the site that the page belongs to; its policy then allows photos and requests to its
    server. ``links``: addresses of photos and pages of both stores; without, images are listed by name.
    """
    names = [record[side]["name"] for side in ("first", "second")]
    packages = ["classlens.render.html.lattice", __package__]
    if site is not None:
        packages.insert(0, "classlens.render.html.explore")
    shown = None if links is None else [side._asdict() for side in links]
    data = [json_element("comparison", visible({**record, "links": shown}), subject="the comparison")]
    return assembled(
        *packages,
        title=f"{names[0]} and {names[1]}, compared by classlens",
        version=version,
        data="\n".join(([] if site is None else [site]) + data),
        site=site is not None,
    )
