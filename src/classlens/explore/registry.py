"""The kinds of pages, in the order of their routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classlens.registry import Registry

if TYPE_CHECKING:
    from classlens.explore.page import Page

PAGES: Registry[Page] = Registry(
    "page",
    {
        "start": "classlens.explore.pages.start:PAGE",
        "gallery": "classlens.explore.pages.gallery:PAGE",
        "thumbs": "classlens.explore.pages.thumbs:PAGE",
        "photo": "classlens.explore.pages.photo:PAGE",
        "edits": "classlens.explore.pages.edits:PAGE",
        "atlas": "classlens.explore.pages.atlas:PAGE",
        "compare": "classlens.explore.pages.compare:PAGE",
        "uploads": "classlens.explore.pages.uploads:PAGE",
        "jobs": "classlens.explore.pages.jobs:PAGE",
    },
)
