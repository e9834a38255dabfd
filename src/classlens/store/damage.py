"""Damage of a store: files that are missing, cut off or changed, found by reading all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from classlens.errors import ClasslensError
from classlens.store.backend import as_url, open_root
from classlens.store.chunks import ChunkError, check_file, decode_chunk, file_limit
from classlens.store.files import StoreFiles
from classlens.store.guard import METADATA
from classlens.store.metadata import PER_IMAGE, SHARD, ArrayMetadata


class Damage(NamedTuple):
    """A file of a store that is missing, cut off or changed.

    ``shard`` is that of its images; None for a file that does not belong to some images.
    """

    group: str
    array: str
    file: str
    shard: int | None

    @property
    def key(self) -> str:
        """Path of the file in the store."""
        return "/".join(filter(None, (self.group, self.array, self.file)))


def find_damage(store: str | os.PathLike[str]) -> list[Damage]:
    """All damage of a store; raises ClasslensError for anything but a store.

    The files of a shard are checked where its marker says that it was measured, and where they exist.
    """
    url = as_url(store)
    open_root(url)
    files = StoreFiles(url)
    found: list[Damage] = []
    wanted: list[tuple[Damage, ArrayMetadata, bool]] = []
    for group in files.folders(""):
        try:
            attributes = files.group(group)
        except ClasslensError:
            found.append(Damage(group, "", METADATA, None))
            continue
        if "coordinates" not in (attributes or {}):  # a run stopped while it made the group
            continue
        arrays: dict[str, ArrayMetadata] = {}
        for name in files.folders(group):
            try:
                arrays[name] = files.array(group, name)
            except ClasslensError:
                found.append(Damage(group, name, METADATA, None))
        present = {*arrays, *(damage.array for damage in found if damage.group == group)}
        lost = [name for name in files.missing_coordinates(group, arrays) if name not in present]
        found += [Damage(group, name, METADATA, None) for name in lost]
        finished = _finished_shards(files, group, arrays.get(PER_IMAGE[-1]))
        for name, metadata in arrays.items():
            by_image = metadata.inner is not None or name in PER_IMAGE
            for number, file in enumerate(metadata.files):
                known = not by_image or (number < len(finished) and finished[number])
                damage = Damage(group, name, file, number if by_image else None)
                wanted.append((damage, metadata, known or name == PER_IMAGE[-1]))
    with ThreadPoolExecutor() as pool:
        whole = pool.map(lambda row: _is_whole(files, *row), wanted, chunksize=16)
        return found + [damage for (damage, _, _), fits in zip(wanted, whole, strict=True) if not fits]


def remedy(damage: Damage) -> str:
    """What mends a damage: the command that wrote the store, given again with the condition of the group."""
    if damage.file == METADATA:
        return f"remove the folder {damage.group}, and run the command that wrote it again to measure it anew"
    if damage.shard is None:
        return "the command that wrote it writes it anew"
    first = damage.shard * SHARD
    return f"the command that wrote it measures images {first} to {first + SHARD - 1} anew"


def _finished_shards(files: StoreFiles, group: str, markers: ArrayMetadata | None) -> list[bool]:
    """Whether a shard has a measured or skipped image; False where its marker is damaged."""
    return [] if markers is None else list(_read_markers(files, group, markers))


def _read_markers(files: StoreFiles, group: str, markers: ArrayMetadata) -> Iterator[bool]:
    for file in markers.files:
        try:
            data = files.read(f"{group}/{PER_IMAGE[-1]}/{file}", file_limit(markers))
            yield data is not None and bool(decode_chunk(data, markers).any())
        except (ChunkError, ClasslensError):
            yield False


def _is_whole(files: StoreFiles, damage: Damage, metadata: ArrayMetadata, required: bool) -> bool:
    try:
        data = files.read(damage.key, file_limit(metadata))
        if data is None:
            return not required
        check_file(data, metadata)
    except (ChunkError, ClasslensError, OSError):
        return False
    return True
