"""The pages as a static site, which any server of files serves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from classlens.data.open_dataset import open_dataset
from classlens.errors import ClasslensError
from classlens.explore.explorer import Explored, Explorer
from classlens.explore.page import Choice
from classlens.explore.registry import PAGES
from classlens.models.classes import Classes
from classlens.render.folders.result_folder import FolderKind, check_replaceable, replacing

SITE = FolderKind(
    "site.json",
    r"site\.json|index\.html|s\d+/index\.html|s\d+/photos/\d+\.html|s\d+/thumbs/\d+\.jpg|compare/\d+-\d+\.html"
    r"|s\d+/atlas/(index\.html|(classes|blocks)/\d+\.html|(heads|units)/\d+\.\d+\.html)",
)
_MOST_IMAGES = 200
"""Photos of a store that get pages without being chosen."""


def check_site(out: Path) -> None:
    """Raise unless a site can be written to a folder."""
    check_replaceable(out, SITE)


def export_site(
    explorer: Explorer,
    out: Path,
    *,
    images: str | None = None,
    classes: str | None = None,
    report: Callable[[str, int, int], None] = lambda text, done, total: None,
) -> int:
    """Write the pages of chosen photos and classes, all at once or nothing, and return their number.

    ``export_site(explorer, Path("site"), images="0-11,40")``

    ``images``: positions in each store, or ``list:FILE`` with names of images; all of a small store when left out.
    ``classes``: names or indices between commas; all of those with images when left out.
    """
    if not explorer.stores:
        raise ClasslensError("no store was given, so there is no page to write: give a store of `classlens measure`")
    choice = Choice(
        {store.number: _images(store, images) for store in explorer.stores}, _classes(explorer.stores[0], classes)
    )
    if images is not None and not any(choice.images.values()):
        raise ClasslensError(f"--export-images {images!r} names no image of the stores: give positions of theirs")
    total = sum(map(len, choice.images.values()))
    written = 0
    with replacing(out, SITE) as folder:
        for path, content in _files(explorer, choice):
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode(errors="xmlcharrefreplace"))
            written += path.endswith(".html")
            report(f"writing {path}", written, max(written, total))
        facts = {"classlens": explorer.version, "stores": [store.measured.url for store in explorer.stores]}
        (folder / SITE.marker).write_text(json.dumps({**facts, "pages": written}, indent=1), encoding="utf-8")
    return written


def _files(explorer: Explorer, choice: Choice) -> Iterator[tuple[str, str | bytes]]:
    for page in PAGES.values():
        if page.export is not None:
            yield from page.export(explorer, choice)


def _images(store: Explored, text: str | None) -> Sequence[int]:
    """Positions of the chosen images that were measured."""
    if text is None:
        if len(store.images) > _MOST_IMAGES:
            raise ClasslensError(
                f"store {store.title!r} has {len(store.images):,} images, and pages of more than {_MOST_IMAGES} are "
                "written on request alone: choose some with --export-images"
            )
        return sorted(store.images)
    if text.startswith("list:"):
        names = {PurePosixPath(name).name for name in open_dataset(text, label_column=None).names}
        return [index for index in sorted(store.images) if PurePosixPath(store.names[index]).name in names]
    chosen: set[int] = set()
    for part in text.split(","):
        span = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        if span is None or int(span[2] or span[1]) < int(span[1]):
            raise ClasslensError(f"--export-images {text!r} is not understood: give positions, such as 0-11,40")
        first, last = int(span[1]), int(span[2] or span[1])
        if last >= len(store.names):
            raise ClasslensError(
                f"--export-images {text!r} goes beyond the {len(store.names):,} images of store {store.title!r}: give "
                f"positions up to {len(store.names) - 1}"
            )
        chosen |= {*range(first, last + 1)}
    return sorted(chosen & store.images)


def _classes(store: Explored, text: str | None) -> Sequence[int] | None:
    if text is None:
        return None
    names = Classes(tuple(store.measured.class_names()))
    return [names.index(part.strip()) for part in text.split(",") if part.strip()]
