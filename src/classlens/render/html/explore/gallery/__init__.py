"""The gallery: photos of a store as a grid, with filters, sorting, and a selection that becomes a list of files."""

from classlens.render.html.explore.gallery.page import gallery_page as gallery_page
