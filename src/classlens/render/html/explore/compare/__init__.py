"""The page of a comparison of two stores."""

from classlens.render.html.explore.compare.page import SideLinks, compare_page

__all__ = ["SideLinks", "compare_page"]
