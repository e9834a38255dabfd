"""The pages of an atlas: a first page with a search, and one each for classes, blocks, heads and hidden units."""

from __future__ import annotations

from classlens.render.html.atlas.pages import atlas_facts, atlas_page, write_atlas_pages

__all__ = ["atlas_facts", "atlas_page", "write_atlas_pages"]
