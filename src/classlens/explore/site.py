"""Facts about the site that each of its pages holds: links, and what its server can do."""

from __future__ import annotations

from typing import Any

from classlens.explore.explorer import Explored, Explorer
from classlens.explore.uploads import LARGEST
from classlens.render.html.page import json_element
from classlens.text import visible


def site_element(explorer: Explorer, path: str, *, store: Explored | None = None) -> str:
    """The element of the page at a path that holds ``site_record``."""
    return json_element("site-record", visible(site_record(explorer, path, store=store)), subject="the site")


def site_record(explorer: Explorer, path: str, *, store: Explored | None = None) -> dict[str, Any]:
    """The record ``site`` of the page at a path such as ``s0/photos/17.html``.

    Links are those of the store, or of the first one on a page that belongs to none.
    """
    number = store.number if store is not None else 0
    shown = store or (explorer.stores[0] if explorer.stores else None)
    links = [["Start", "index.html"]]
    if shown is not None:
        links.append(["Photos", f"s{number}/index.html"])
        if shown.has_atlas:
            links.append(["Classes and heads", f"s{number}/atlas/index.html"])
        others = [other.number for other in explorer.stores if other is not shown]
        if others:
            first, second = sorted((number, others[0]))
            links.append(["Compare", f"compare/{first}-{second}.html"])
    return {
        "root": "../" * path.count("/"),
        "path": path,
        "store": None if store is None else store.number,
        "live": explorer.live,
        "takes_photos": explorer.live and explorer.lens is not None,
        "largest_photo": LARGEST,
        "links": links,
    }
