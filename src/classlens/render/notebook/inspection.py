"""An inspection in a notebook: its page, in a frame of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from classlens.lens.inspection import Inspection
from classlens.render.html.report import report_page
from classlens.render.notebook.elements import Markup, block, code, note, percent, result
from classlens.render.notebook.reduction import reductions
from classlens.text import html_text

if TYPE_CHECKING:
    from PIL.Image import Image

SHOWN = 4
"""Number of images that a notebook shows."""
LARGEST = 1_000_000
"""Bytes of an image, of which the code of the page takes some."""
_AROUND = 2_000
"""Bytes around the page: the frame and a note."""
_HEIGHT = 760
_FRAME = (
    f"display:block;width:100%;height:{_HEIGHT}px;min-width:0;max-width:100%;max-height:none;margin:0;padding:0;"
    "border:1px solid rgb(128 128 128 / 0.4);border-radius:8px;box-sizing:border-box;resize:vertical;overflow:auto;"
    "visibility:visible;opacity:1;position:static;transform:none;color-scheme:light dark;"
)


def inspection_html(inspection: Inspection) -> Markup:
    """The page in a frame, which keeps styles and scripts of page and notebook apart.

    The frame is a document of another origin (``sandbox``): its script sees nothing of the notebook. It grows with the
    cell's width, scrolls within, and loads nothing.
    """
    record, pictures = inspection.record, inspection.pictures
    count = min(SHOWN, len(pictures))
    page = _fitting({**record, "images": record["images"][:count]}, pictures[:count])
    if page is None:
        return _too_large(record)
    title = f"How {record['model']['name']} builds its classes"
    frame = Markup(
        f'<iframe title="{html_text(title)}" sandbox="allow-scripts" style="{_FRAME}" '
        f'height="{_HEIGHT}" width="100%" srcdoc="{page}"></iframe>'
    )
    if count == len(pictures):
        return frame
    return Markup(frame + note(f"The first {count} of {len(pictures)} images. ", *_hint(" has a page with all.")))


def _fitting(record: Mapping[str, Any], pictures: Sequence[Image]) -> str | None:
    """The page, escaped, with no more left out than it has to be; None where it stays too large."""
    for smaller, words in reductions(record):
        left_out = ""
        if words:
            left_out = f"Left out to fit a notebook: {'; '.join(words)}. inspection.write(folder) writes all of it."
        for count in sorted({1, len(pictures)}):  # what the first image takes is soon known
            part = {**smaller, "images": smaller["images"][:count]}
            page = escape(report_page(part, pictures[:count], left_out=left_out))
            if len(page.encode("utf-8", "xmlcharrefreplace")) > LARGEST * count - _AROUND:
                break
        else:
            return page
    return None


def _hint(words: str) -> tuple[object, ...]:
    return code("inspection.write(folder)"), words


def _too_large(record: Mapping[str, Any]) -> Markup:
    """Predictions in words, for a model whose page no notebook should hold."""
    lines = []
    for image in record["images"][:SHOWN]:
        guesses = [
            f"{guess['name']} {guess['logit']:.2f}" if guess["probability"] is None else
            f"{guess['name']} {percent(guess['probability'])}"
            for guess in image["predictions"]
        ]  # fmt: skip
        lines.append(block(f"{image['label']}: {', '.join(guesses)}", style="font-size:13px;overflow-wrap:anywhere;"))
    title = f"Inspection of {len(record['images'])} images by {record['model']['name']}"
    return result(title, *lines, note("The page is too large for a notebook. ", *_hint(" writes it.")))
