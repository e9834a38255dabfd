"""``pets:ROOT``: Oxford-IIIT Pet, 37 breeds of cats and dogs with a trimap of every photo.

Source of the layout: Parkhi et al., *Cats and Dogs* (CVPR 2012) and its published archives, as torchvision unpacks
them.
"""

from __future__ import annotations

from classlens.data.dataset import ClassName, Dataset, ImageFiles, data_root, read_text_file
from classlens.data.layout import Layout
from classlens.data.mask_files import MaskFiles
from classlens.data.mask_values import MaskValues
from classlens.errors import ClasslensError, suggestion

_FOLDER = "oxford-iiit-pet"
_SPLITS = ("test", "trainval")
_TRIMAP = MaskValues(object=(1,), background=(2,), ignore=(3,))


def read(spec: str, root: str, split: str | None) -> Dataset:
    """``ROOT/images`` and ``ROOT/annotations``; ``split`` is ``test`` (default) or ``trainval``.

    A trimap shows the animal (1), the background (2) and the border between them (3), which is left open.
    """
    base, chosen = data_root(spec, root), split or _SPLITS[0]
    folder = base / _FOLDER if (base / _FOLDER).is_dir() else base
    if chosen not in _SPLITS:
        raise ClasslensError(
            f"data {spec!r} has no split {chosen!r}{suggestion(chosen, _SPLITS)}: give test or trainval"
        )
    file = folder / "annotations" / f"{chosen}.txt"
    if not file.is_file():
        raise ClasslensError(
            f"data {spec!r} has no file annotations/{chosen}.txt: give the folder that images and annotations of "
            "Oxford-IIIT Pet were unpacked in"
        )
    labels: dict[str, int] = {}
    breeds: dict[int, str] = {}
    for number, line in enumerate(read_text_file(file).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *ids = line.split()
        if not ids or not ids[0].isdecimal() or int(ids[0]) < 1:
            raise ClasslensError(
                f"line {number} of {str(file)!r} is no photo and its class, such as Abyssinian_100 1 1 1: give the "
                "published file"
            )
        labels[name] = int(ids[0]) - 1
        breeds.setdefault(labels[name], " ".join(part.title() for part in name.rpartition("_")[0].split("_")))
    names = sorted(labels)
    classes = [ClassName(breeds.get(label, f"breed {label + 1}")) for label in range(max(breeds, default=-1) + 1)]
    photos = ImageFiles(folder, tuple(f"images/{name}.jpg" for name in names))
    trimaps = folder / "annotations" / "trimaps"
    files = {position: trimaps / f"{name}.png" for position, name in enumerate(names)}
    source = MaskFiles(photos, files, {None: _TRIMAP}) if trimaps.is_dir() else photos
    return Dataset.whole(spec, chosen, photos.paths, [labels[name] for name in names], classes, source)


LAYOUT = Layout(
    "Oxford-IIIT Pet", "ROOT", "cats and dogs of 37 breeds with masks of the animal, as torchvision unpacks them", read
)
