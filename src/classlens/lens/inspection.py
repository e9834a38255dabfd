"""An inspection of images: all that a report shows of them, as numbers and as a page."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from classlens.core.arguments import AnyPath, AtLeast1, checked
from classlens.core.path_arguments import checked_with_home
from classlens.errors import ClasslensError
from classlens.explain.batching import slices
from classlens.forward.isolation import isolated_methods
from classlens.forward.recording import Recording
from classlens.lens.images import Images
from classlens.lens.target import Target, class_indices, is_predicted
from classlens.lens.trace import Trace
from classlens.models.classes import Classes
from classlens.models.transforms import Preprocessing
from classlens.renderers import RENDERERS, Shown


@dataclass(frozen=True, eq=False, repr=False)
class Inspection(Shown):
    """The report of some images, from ``Lens.inspect``. A notebook shows it as the interactive page.

    The page in a notebook has at most 4 images and takes less than 1 MB for each. What does not fit is left out, the
    attention of tokens that the head does not pool first, and the page says so; ``write`` leaves out nothing.

    Attributes:
        record: plain numbers, lists and texts, as in ``inspect.json``; ``record["images"]`` has one entry for each
            image.
        pictures: what the model saw of each image, after resizing and cropping.
    """

    _renderer: ClassVar[str] = "inspection"

    record: dict[str, Any]
    pictures: list[Image.Image]

    def __len__(self) -> int:
        return len(self.pictures)

    def __repr__(self) -> str:
        return f"Inspection({len(self)} image{'' if len(self) == 1 else 's'} of {self.record['model']['name']!r})"

    @checked_with_home
    def write(self, folder: AnyPath) -> Path:
        """Write the folder of ``classlens inspect``: ``report.html``, ``inspect.json`` and figures.

        Args:
            folder: a new or empty folder, or one of an earlier inspection, which is replaced once all is written.

        Returns:
            Path of ``report.html``.

        Raises:
            ClasslensError: a folder that holds other files or cannot be written.

        Examples:
            >>> import classlens
            >>> classlens.load("builtin:photos").inspect("cat.png").write("report")  # doctest: +SKIP
        """
        page: Path = RENDERERS["inspection folder"](self.record, self.pictures, Path(folder))
        return page


@isolated_methods
@checked
class InspectingLens:
    """A model that images are inspected with."""

    classes: Classes
    preprocessing: Preprocessing

    def inspect(
        self, images: Images, target: Target = "predicted", against: Target | None = None, *, batch_size: AtLeast1 = 8
    ) -> Inspection:
        """How the model builds the class of each image: the report of ``classlens inspect``.

        Args:
            images: as for ``trace``.
            target: class of interest, as for ``Trace.explain``.
            against: another class, given like ``target``: explain the class rather than this one.
            batch_size: images in one forward pass; the traces of no more are held at once.

        Returns:
            An ``Inspection``, which a notebook shows as an interactive page. The page offers the likeliest classes of
            each image too.

        Raises:
            ClasslensError: as ``trace`` does, an unknown class, or a class against itself.

        Examples:
            >>> import classlens, torch
            >>> lens = classlens.load("builtin:cifar10")
            >>> inspection = lens.inspect(torch.zeros(1, 3, 32, 32), against="cat")
            >>> inspection
            Inspection(1 image of 'builtin:cifar10')
            >>> [guess["name"] for guess in inspection.record["images"][0]["predictions"]][:2]
            ['airplane', 'bird']
            >>> inspection.write("report")  # doctest: +SKIP
        """
        names, pixels = self._inputs(images, batch_size)
        wanted = _given(self.classes, target, len(names), "target")
        rival = None if against is None else _given(self.classes, against, len(names), "against")
        _check_rival(self.classes, wanted, rival)
        pictures: list[Image.Image] = []

        def traces() -> Iterator[Trace]:
            for batch in slices(len(names), batch_size):
                recording = self._record(names[batch], pixels[batch], batch_size)
                trace = Trace(recording, self.classes, self.preprocessing, names[batch], pixels[batch])
                pictures.extend(trace.picture(number) for number in range(len(trace)))
                yield trace

        version = metadata.version("classlens")
        record = RENDERERS["inspection record"](self, traces(), wanted, rival, version=version)
        return Inspection(record, pictures)

    @abstractmethod
    def _record(self, names: Sequence[str], pixels: Tensor, batch_size: int) -> Recording: ...

    @abstractmethod
    def _inputs(
        self, images: Images, batch_size: int
    ) -> tuple[list[str], Float[Tensor, "image channel height width"]]: ...


def _given(classes: Classes, target: Target, images: int, name: str) -> Int[Tensor, " image"] | str:
    """``"predicted"``, or the class index of each image."""
    return "predicted" if is_predicted(target) else class_indices(classes, target, images, name)


def _check_rival(
    classes: Classes, target: Int[Tensor, " image"] | str, against: Int[Tensor, " image"] | str | None
) -> None:
    """Raises ClasslensError for a class that is compared with itself."""
    same = None
    if isinstance(target, Tensor) and isinstance(against, Tensor):
        shared = target[target == against].tolist()
        same = classes.names[shared[0]] if shared else None
    elif target == against:
        same = "predicted"
    if same is not None:
        raise ClasslensError(f"target and against are both {same!r}: give another class")
