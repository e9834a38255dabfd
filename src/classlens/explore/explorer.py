"""The stores, photos and model that the pages of a server show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from threading import RLock
from typing import Any

from PIL import Image

from classlens.analysis.atlas.atlas import Atlas, atlas
from classlens.analysis.measured_store import MeasuredStore
from classlens.core.arrays import Array
from classlens.data.dataset import Dataset
from classlens.errors import ClasslensError
from classlens.explore.jobs import Jobs
from classlens.explore.uploads import Uploads
from classlens.forward.means import Means
from classlens.lens.lens import Lens
from classlens.models.digest import weights_digest
from classlens.store.provenance import transform_digest, transform_pixels
from classlens.tasks.tokens.attribution.schema import ATTRIBUTION
from classlens.tasks.tokens.conditions.registry import CLEAN


class NotFound(ClasslensError):
    """An address without a page."""


class Explored:
    """A store with its photos and, where its weights are those of the loaded model, the live model.

    Attributes:
        number: position among the stores, from 0.
        measured: the store.
        title: name of the store on pages.
        dataset: the photos; None where they cannot be opened, as ``without_photos`` says.
        lens: the live model; None where it is another one, as ``without_lens`` says.
    """

    def __init__(
        self,
        number: int,
        measured: MeasuredStore,
        dataset: Dataset | None,
        lens: Lens | None,
        without_photos: str = "",
        *,
        title: str | None = None,
    ) -> None:
        self.number = number
        self.measured = measured
        self.title = title or measured.stem
        self.dataset = dataset
        self.without_photos = without_photos
        same = lens is not None and weights_digest(lens.view) == measured.attrs["weights"]
        self.lens = lens if same else None
        self.without_lens = "" if same else _without_lens(lens, measured.attrs)
        self._lock = RLock()

    @cached_property
    def names(self) -> list[str]:
        """Names of all images of the store, with those that were not measured."""
        return [str(name) for name in self._clean("image")]

    @cached_property
    def images(self) -> frozenset[int]:
        """Positions of the measured images."""
        return frozenset(self.measured.measured_images.tolist())

    @property
    def opens(self) -> bool:
        """Whether photos have pages of their own: they take the photos and the live model."""
        return self.lens is not None and self.dataset is not None

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what pages of the store lack, and on numbers that differ."""
        return tuple(note for note in (self.without_photos, self.without_lens, self._other_transform()) if note)

    def _other_transform(self) -> str:
        measured = self.measured.attrs.get("transform")
        if self.lens is None or measured is None:
            return ""
        if transform_digest(transform_pixels(self.lens.preprocessing)) == measured:
            return ""
        return (
            "the loaded model reads photos by another transform than that of the store, so pages of photos differ from "
            "what was measured: start with the --transform, --mean … of the measurement"
        )

    def name(self, index: int) -> str:
        """Name of a measured image; raises NotFound for another position."""
        if index not in self.images:
            raise NotFound(f"store {self.title!r} has no measured image {index}: give one of its {len(self.names):,}")
        return self.names[index]

    def picture(self, index: int) -> Image.Image:
        """The photo that was measured; raises NotFound where it is gone, unreadable or another one."""
        name = self.name(index)
        if self.dataset is None:
            raise NotFound(self.without_photos)
        position = self._photos.get(name)
        if position is None:
            raise NotFound(f"photo {name!r} is not among those of {self.dataset.spec!r}: give its place with --data")
        with suppress(ClasslensError):
            content = int(self.content[index]) if self.content is not None else 0
            if not content or int(self.dataset.content([position])[0]) == content:
                return self.dataset.picture(position)
        raise NotFound(f"photo {name!r} has changed since it was measured, or cannot be read: measure it again")

    def file(self, index: int) -> str:
        """The file of a measured photo; its name where photos of the data set are no files."""
        name = self.name(index)
        file = None if self.dataset is None or name not in self._photos else self.dataset.file(self._photos[name])
        return name if file is None else str(file)

    @property
    def has_atlas(self) -> bool:
        """Whether contributions were measured."""
        return self.measured.has(ATTRIBUTION)

    @property
    def atlas(self) -> Atlas:
        """Tables of the atlas; they are computed when first asked for, which takes a while."""
        with self._lock:
            return self._atlas

    @cached_property
    def _atlas(self) -> Atlas:
        if not self.has_atlas:
            raise NotFound(f"store {self.title!r} has no contributions: measure it with --attribution --units 64")
        return atlas(self.measured.url)

    @cached_property
    def _photos(self) -> dict[str, int]:
        return {} if self.dataset is None else {name: index for index, name in enumerate(self.dataset.names)}

    @cached_property
    def content(self) -> Array | None:
        """Numbers that tell the measured photos from others of their names; 0 where none is known."""
        group = self.measured.group(CLEAN)
        return None if group is None or "content" not in group else group["content"].values

    def _clean(self, name: str) -> Array:
        group = self.measured.group(CLEAN)
        assert group is not None, "every store has the condition clean"
        return group[name].values


def _without_lens(lens: Lens | None, attrs: Mapping[str, Any]) -> str:
    """Why the loaded model is not that of a store with these attributes, and what to do."""
    if lens is None:
        return f"no model was loaded: start with --model {attrs['model']} and its weights"
    name, dtype, measured = lens.view.name, str(lens.view.dtype).removeprefix("torch."), attrs.get("dtype")
    if name == attrs["model"] and measured not in (None, dtype):
        return (
            f"the loaded model {name!r} is in {dtype}, and the store was measured in {measured}: add --dtype {measured}"
        )
    return (
        f"the loaded model {name!r} has other weights: start with --model {attrs['model']} and the options that it was "
        "measured with, such as --checkpoint or --multi-label"
    )


@dataclass(eq=False)
class Explorer:
    """Everything that the pages of a server show.

    ``model`` and ``load_options``: arguments of ``classlens.load``. ``means`` and ``means_file``: means of a data set
    for edits, and their file.
    """

    stores: Sequence[Explored]
    lens: Lens | None
    version: str
    live: bool = True
    model: str = ""
    load_options: Mapping[str, Any] = field(default_factory=dict)
    means: Means | None = None
    means_file: str | None = None
    jobs: Jobs = field(default_factory=Jobs)
    uploads: Uploads = field(default_factory=Uploads)

    def store(self, number: int) -> Explored:
        """A store by its number; raises NotFound for another one."""
        if not 0 <= number < len(self.stores):
            raise NotFound(f"there is no store {number}: {len(self.stores)} were given")
        return self.stores[number]


def open_stores(
    stores: Sequence[MeasuredStore],
    lens: Lens | None,
    photos: Callable[[MeasuredStore], Dataset],
) -> list[Explored]:
    """Stores with their photos, which ``photos`` opens; a store whose photos are gone is shown without."""
    explored = []
    for number, (measured, title) in enumerate(zip(stores, _titles(stores), strict=True)):
        dataset, reason = None, ""
        try:
            dataset = photos(measured)
        except ClasslensError as error:
            reason = str(error)
        explored.append(Explored(number, measured, dataset, lens, reason, title=title))
    return explored


def _titles(stores: Sequence[MeasuredStore]) -> list[str]:
    """Names of stores: the ends of their addresses, long enough to tell them apart."""
    paths = [PurePosixPath(store.url.rstrip("/")) for store in stores]
    tails = [[*path.parts[:-1], path.stem] for path in paths]
    titles = []
    for tail in tails:
        lengths = range(1, len(tail) + 1)
        alone = (size for size in lengths if sum(other[-size:] == tail[-size:] for other in tails) == 1)
        titles.append("/".join(tail[-next(alone, 1) :]))
    return titles
