"""``coco:ROOT``: instances of COCO, photos labeled by their largest object.

Source of the layout: Lin et al., *Microsoft COCO* (arXiv 1405.0312) and https://cocodataset.org/#format-data, which
many tools for annotation write.
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool
from PIL import Image

from classlens.core.arrays import Array
from classlens.data.dataset import ClassName, Dataset, ImageFiles, Masks
from classlens.data.layout import Layout
from classlens.data.mask_files import turned_as
from classlens.data.regions import decode_runs, fill_polygons
from classlens.errors import ClasslensError, cause, suggestion

_PREFIX = "instances_"
_FORM = "instances of COCO, with images, annotations and categories"


class _Region(NamedTuple):
    """Polygons, or run lengths and the height and width that they are of; neither for an object without an outline."""

    polygons: tuple[Array, ...] = ()
    runs: tuple[int, ...] | str = ()
    size: tuple[int, int] = (0, 0)

    def mask(self, size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
        if self.runs:
            if self.size != size:
                raise ValueError(f"a region is of {self.size[0]}×{self.size[1]} pixels")
            return decode_runs(self.runs, size)
        if not self.polygons:
            raise ValueError("an object has no outline")
        return fill_polygons(self.polygons, size)


class _Photo(NamedTuple):
    """A photo: its height and width, all objects of its class, and regions of crowds."""

    size: tuple[int, int]
    objects: tuple[_Region, ...]
    crowds: tuple[_Region, ...]


@dataclass(frozen=True, eq=False)
class _Instances:
    """Photos and the regions of their objects."""

    files: ImageFiles
    photos: tuple[_Photo, ...]
    has_masks: bool

    def picture(self, position: int) -> Image.Image:
        return self.files.picture(position)

    def content(self, position: int) -> int:
        photo = self.photos[position]
        digest = zlib.crc32(repr((photo.size, len(photo.objects))).encode())
        for region in (*photo.objects, *photo.crowds):
            digest = zlib.crc32(repr((region.runs, region.size)).encode(), digest)
            for polygon in region.polygons:
                digest = zlib.crc32(polygon.tobytes(), digest)
        return self.files.content(position) ^ digest

    def masks(self, position: int) -> Masks:
        """Both, from one drawing of the regions."""
        photo = self.photos[position]
        if not self.has_masks:
            return None, None
        shows = self._union(position, photo.objects)
        if not shows.any():
            raise ClasslensError(f"the outlines of image {self.files.paths[position]!r} hold no pixel: mend them")
        return shows, self._union(position, photo.crowds) & ~shows if photo.crowds else None

    def _union(self, position: int, regions: tuple[_Region, ...]) -> Bool[np.ndarray, "height width"]:
        size, name = self.photos[position].size, self.files.paths[position]
        try:
            shows: Bool[np.ndarray, "height width"] = np.logical_or.reduce([region.mask(size) for region in regions])
        except (ValueError, TypeError, OverflowError) as error:
            raise ClasslensError(
                f"the outlines of image {name!r} of {size[0]}×{size[1]} pixels do not fit ({cause(error)}): mend them"
            ) from None
        return turned_as(self.files.root / name, shows)


def read(spec: str, root: str, split: str | None) -> Dataset:
    """``ROOT/annotations/instances_val2017.json`` and ``ROOT/val2017/*.jpg``, or a file of instances as ROOT.

    The label of a photo is the class of its object of the largest area, and its mask shows all objects of this class.
    Crowds are no objects, and the mask leaves them open. Photos without an object are left out.
    """
    file, chosen = _file(spec, Path(root).expanduser(), split)
    try:
        content = json.loads(file.read_bytes())
        folder, base = _folder(spec, file, chosen, [image["file_name"] for image in content["images"]])
        categories = sorted(content["categories"], key=lambda category: category["id"])
        index_of = {category["id"]: index for index, category in enumerate(categories)}
        classes = [ClassName(str(category["name"])) for category in categories]
        by_image: dict[Any, list[Any]] = defaultdict(list)
        for annotation in content["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        images = sorted(content["images"], key=lambda image: str(image["file_name"]))
        photos, labels, paths = list[_Photo](), list[int](), list[str]()
        for image in images:
            objects = [each for each in by_image[image["id"]] if not each.get("iscrowd")]
            if not objects:
                continue
            largest = max(objects, key=_area)["category_id"]
            of_class = tuple(_region(each) for each in objects if each["category_id"] == largest)
            crowds = tuple(_region(each) for each in by_image[image["id"]] if each.get("iscrowd"))
            photos.append(_Photo((int(image["height"]), int(image["width"])), of_class, crowds))
            labels.append(index_of[largest])
            paths.append((folder / str(image["file_name"])).as_posix())
    except ClasslensError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        lacks = f"it lacks {cause(error)}" if isinstance(error, KeyError) else cause(error)
        raise ClasslensError(f"data {spec!r}: {str(file)!r} cannot be read ({lacks}): expected {_FORM}") from None
    masked = any(region.polygons or region.runs for photo in photos for region in photo.objects)
    source = _Instances(ImageFiles(base, tuple(paths)), tuple(photos), masked)
    without = len(images) - len(photos)
    note = f"photos without an object are left out: {without:,}" if without else ""
    return Dataset.whole(spec, chosen, paths, labels, classes, source, note)


def _file(spec: str, root: Path, split: str | None) -> tuple[Path, str | None]:
    """The file of instances of a split; ``val…`` comes first."""
    if root.is_file():
        if split is not None:
            raise ClasslensError(f"data {spec!r} is one file of instances and has no splits: leave out split {split!r}")
        return root, None
    files = sorted(root.glob(f"annotations/{_PREFIX}*.json"))
    by_split = {file.stem.removeprefix(_PREFIX): file for file in files}
    if not by_split:
        raise ClasslensError(
            f"data {spec!r} has no file annotations/{_PREFIX}….json: give the folder that holds annotations, or a "
            "file of instances"
        )
    chosen = split or next((name for name in by_split if name.startswith("val")), next(iter(by_split)))
    if chosen not in by_split:
        raise ClasslensError(
            f"data {spec!r} has no split {chosen!r}{suggestion(chosen, by_split)}: it has {', '.join(by_split)}"
        )
    return by_split[chosen], chosen


def _folder(spec: str, file: Path, split: str | None, names: list[Any]) -> tuple[Path, Path]:
    """The folder of the photos, and the root that it is relative to."""
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    name = split or file.stem.removeprefix(_PREFIX)
    places = [Path(name), Path("images") / name, Path("images"), Path()]
    for place in places:
        if any((root / place / str(each)).is_file() for each in names[:100]):
            return place, root
    raise ClasslensError(
        f"data {spec!r}: the photos of {file.name!r}, such as {names[0] if names else 'none'!r}, lie neither in "
        f"{str(root / name)!r} nor in {str(root / 'images')!r}: put them there"
    )


def _area(annotation: dict[str, Any]) -> float:
    area = annotation.get("area")
    return float(annotation["bbox"][2] * annotation["bbox"][3] if area is None else area)


def _region(annotation: dict[str, Any]) -> _Region:
    outline = annotation.get("segmentation")
    if isinstance(outline, dict):
        height, width = outline["size"]
        counts = outline["counts"]
        return _Region(runs=counts if isinstance(counts, str) else tuple(counts), size=(int(height), int(width)))
    return _Region(tuple(np.asarray(polygon, dtype=np.float64) for polygon in outline or ()))


LAYOUT = Layout(
    "COCO", "ROOT", "instances of COCO, photos labeled by their largest object; or a file of instances", read
)
