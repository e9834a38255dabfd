"""Records of the numbers and texts on the pages of an atlas, from its tables."""

from __future__ import annotations

from classlens.render.atlas_record.choice import PageChoice, choose_pages
from classlens.render.atlas_record.records import PageRecord, PageRecords

__all__ = ["PageChoice", "PageRecord", "PageRecords", "choose_pages"]
