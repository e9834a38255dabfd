"""The pages as a static site, which any server of files serves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from classlens.data.open_dataset import open_dataset
from classlens.errors import ClasslensError
from classlens.explore.explorer import Explored, Explorer
from classlens.explore.page import Choice
from classlens.explore.registry import PAGES
from classlens.models.classes import Classes
from classlens.render.atlas_record.choice import classes_with_images
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
        {store.number: _images(store, images) for store in explorer.stores}, _classes(explorer.stores, classes)
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
        return sorted(_listed(store, open_dataset(text, label_column=None).names))
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


def _listed(store: Explored, files: Sequence[str]) -> set[int]:
    """Images of a list: of those that share a file's name, the ones that share most of its folders."""
    by_name: dict[str, list[int]] = {}
    for index in store.images:
        by_name.setdefault(PurePosixPath(store.names[index]).name, []).append(index)
    chosen: set[int] = set()
    for file in files:
        path = PurePosixPath(file)
        alike = by_name.get(path.name, ())
        shared = {index: _common_end(path.parts, PurePosixPath(store.names[index]).parts) for index in alike}
        chosen |= {index for index, length in shared.items() if length == max(shared.values())}
    return chosen


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    """Number of last parts that two paths share."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((length for length, (part, same) in enumerate(pairs) if part != same), min(len(one), len(other)))


def _classes(stores: Sequence[Explored], text: str | None) -> Mapping[int, Sequence[int]] | None:
    """The chosen classes in each store that has images of them; stores may have other classes."""
    if text is None:
        return None
    with_atlas = [store for store in stores if store.has_atlas]
    if not with_atlas:
        raise ClasslensError(
            "--export-classes chooses pages of classes, but the stores have no contributions: measure them with "
            "--attribution --units 64, or leave it out"
        )
    chosen: dict[int, list[int]] = {store.number: [] for store in stores}
    for part in filter(None, map(str.strip, text.split(","))):
        indices: dict[int, int] = {}
        for store in with_atlas:
            try:
                indices[store.number] = Classes(tuple(store.measured.class_names())).index(part)
            except ClasslensError:
                if store is with_atlas[-1] and not indices:
                    raise
        shown = [n for n, index in indices.items() if index in classes_with_images(stores[n].atlas.tables)]
        if not shown:
            raise ClasslensError(f"--export-classes {text!r}: no photo is of class {part!r}: give classes of photos")
        for number in shown:
            chosen[number].append(indices[number])
    return chosen
