"""Assembles the gallery of a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from classlens.render.html.page import assembled, json_element


def gallery_page(record: Mapping[str, Any], site: str, *, version: str) -> str:
    """The page of a gallery; ``site`` is the element with the facts about its site.

    ``gallery_page(gallery_record(table, attrs, store=url), site, version="0.1.0")``

    Thumbnails are read from ``thumbs/N.jpg`` beside the page, and photos link to ``photos/N.html``.
    """
    return assembled(
        "classlens.render.html.explore",
        __package__,
        title=f"Photos · {record['model']}",
        version=version,
        data="\n".join([site, json_element("gallery", record, subject="the gallery")]),
        site=True,
    )
