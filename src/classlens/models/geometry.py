"""Where what a model sees lies in the original picture, for transforms made of resizes and center crops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms._presets import ImageClassification

from classlens.models.transforms import Transform

Size = tuple[int, int]
"""Height and width."""

# Steps that leave every pixel where it is, by the name of their class.
_STILL = frozenset(
    [
        *("ToTensor", "PILToTensor", "MaybeToTensor", "MaybePILToTensor", "ToNumpy", "ToImage"),
        *("ToDtype", "ConvertImageDtype", "Normalize", "_convert_to_rgb"),  # the last is OpenCLIP's
    ]
)


class Box(NamedTuple):
    """A rectangle in pixels from the upper left corner: ``Box(0, 0, 4, 3)`` is a picture 4 wide and 3 high."""

    left: float
    top: float
    right: float
    bottom: float

    def scaled(self, x: float, y: float) -> Box:
        return Box(self.left * x, self.top * y, self.right * x, self.bottom * y)


@dataclass(frozen=True)
class Window:
    """Where the model's input lies in a picture: ``window((300, 451), transform).frame.left``, in its pixels."""

    frame: Box
    """The borders of the input; outside of the picture where a crop padded it."""
    seen: Box
    """The part of the picture that the input shows."""

    def scaled(self, x: float, y: float) -> Window:
        """The same window in a picture resized by these factors."""
        return Window(self.frame.scaled(x, y), self.seen.scaled(x, y))


@dataclass(frozen=True)
class Resized:
    """The whole picture at another size."""

    size: Size


@dataclass(frozen=True)
class Cropped:
    """A part of a picture that begins at a row and a column; outside of the picture it is padding."""

    start: tuple[int, int]
    size: Size


def stages(size: Size, transform: Transform | None) -> list[Resized | Cropped] | None:
    """What a transform does to a picture of a height and width; None where it has steps of other kinds.

    stages((300, 451), paper_transform((224, 224)))  # [Resized((224, 224))]
    """
    found: list[Resized | Cropped] = []
    for step in [] if transform is None else _steps(transform):
        if getattr(step, "__name__", type(step).__name__) in _STILL:
            continue
        change = _CHANGES.get(type(step))
        if change is None or step.size is None:
            return None
        stage = change(step, size)
        found.append(stage)
        size = stage.size
    return found


def window(size: Size, transform: Transform | None) -> Window | None:
    """Where in a picture of a height and width the model's input lies; None for transforms with steps of other kinds.

    window((300, 451), transform).seen  # Box(left=75.5, top=0.0, right=375.5, bottom=300.0)
    """
    found = stages(size, transform)
    if found is None:
        return None
    sides = [_side(size[axis], [_on(stage, axis) for stage in found]) for axis in (0, 1)]
    (top, bottom), (left, right) = (frame for frame, _ in sides)
    (first, last), (begin, end) = (seen for _, seen in sides)
    return Window(Box(left, top, right, bottom), Box(begin, first, end, last))


_Interval = tuple[float, float]


def _on(stage: Resized | Cropped, axis: int) -> tuple[int | None, int]:
    """The start, None for a resize, and the size along an axis."""
    return (stage.start[axis] if isinstance(stage, Cropped) else None, stage.size[axis])


def _side(count: int, changes: list[tuple[int | None, int]]) -> tuple[_Interval, _Interval]:
    """Frame and seen part of one side of a picture."""
    first, last = 0.0, float(count)
    seen = (first, last)
    for start, size in changes:
        if start is not None:
            pixel = (last - first) / count
            first, last = first + start * pixel, first + (start + size) * pixel
            # What one crop has cut off, the padding of a later one does not bring back.
            seen = (max(seen[0], first), min(seen[1], last))
        count = size
    return (first, last), seen


def _steps(transform: Any) -> list[Any]:
    """The steps of a chain, also of chains within it."""
    if type(transform) is ImageClassification:
        return [transforms.Resize(transform.resize_size), transforms.CenterCrop(transform.crop_size)]
    if isinstance(transform, transforms.Compose | v2.Compose):
        return [each for step in transform.transforms for each in _steps(step)]
    return [transform]


def _resized(step: Any, now: Size) -> Resized:
    size = [step.size] if isinstance(step.size, int) else list(step.size)
    if len(size) == 1:  # the shorter side, the other in proportion, as torchvision counts it
        long = int(size[0] * max(now) / min(now))
        if step.max_size is not None and long > step.max_size:
            size[0], long = int(step.max_size * size[0] / long), step.max_size
        size = [long, size[0]] if now[0] > now[1] else [size[0], long]
    return Resized((size[0], size[1]))


def _cropped(step: Any, now: Size) -> Cropped:
    height, width = step.size if len(step.size) == 2 else (*step.size, *step.size)
    return Cropped((_start(now[0], height), _start(now[1], width)), (height, width))


def _start(now: int, size: int) -> int:
    """Where the middle begins; below 0 where there is less than that, with the odd pixel of padding at the end."""
    return round((now - size) / 2.0) if now >= size else -((size - now) // 2)


_CHANGES: dict[type, Callable[[Any, Size], Resized | Cropped]] = {
    transforms.Resize: _resized,
    v2.Resize: _resized,
    transforms.CenterCrop: _cropped,
    v2.CenterCrop: _cropped,
}
