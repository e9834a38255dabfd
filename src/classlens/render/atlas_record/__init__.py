"""What the pages of an atlas show: records of numbers and texts, from the tables of an atlas."""

from __future__ import annotations

from classlens.render.atlas_record.choice import PageChoice, choose_pages
from classlens.render.atlas_record.records import PageRecord, page_records

__all__ = ["PageChoice", "PageRecord", "choose_pages", "page_records"]
