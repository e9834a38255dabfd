"""The report page: one HTML file to explore an inspection record in."""

from __future__ import annotations

from classlens.render.html.report.page import report_page, write_report

__all__ = ["report_page", "write_report"]
