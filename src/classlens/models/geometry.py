"""The part of a picture that a model receives, for transforms of resizes and center crops."""

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

# Steps that keep the position of every pixel, by class name.
_POSITION_KEEPING = frozenset(
    [
        *("ToTensor", "PILToTensor", "MaybeToTensor", "MaybePILToTensor", "ToNumpy", "ToImage"),
        *("ToDtype", "ConvertImageDtype", "Normalize", "_convert_to_rgb"),  # the last one belongs to OpenCLIP
    ]
)


def keeps_positions(step: Any) -> bool:
    """Whether a step of a transform keeps the position of every pixel."""
    return getattr(step, "__name__", type(step).__name__) in _POSITION_KEEPING


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
    """The position of the model's input in a picture, in pixels of the picture."""

    frame: Box
    """The borders of the input; outside of the picture where a crop padded it."""
    visible: Box
    """The part of the picture that the input shows."""

    def scaled(self, x: float, y: float) -> Window:
        """The same window in a picture resized by these factors."""
        return Window(self.frame.scaled(x, y), self.visible.scaled(x, y))


@dataclass(frozen=True)
class Resized:
    """The whole picture at another size."""

    size: Size


@dataclass(frozen=True)
class Cropped:
    """A part of a picture, from a first row and column; padded where it lies outside of the picture."""

    start: tuple[int, int]
    size: Size


def transform_stages(size: Size, transform: Transform | None) -> list[Resized | Cropped] | None:
    """The resizes and crops that a transform applies to a picture of a height and width; None for other steps.

    Examples:
        >>> from classlens.models.transforms import paper_transform
        >>> transform_stages((300, 451), paper_transform((224, 224)))
        [Resized(size=(224, 224))]
    """
    stages: list[Resized | Cropped] = []
    for step in [] if transform is None else transform_steps(transform):
        if keeps_positions(step):
            continue
        make_stage = _STAGES.get(type(step))
        if make_stage is None or step.size is None:
            return None
        stages.append(make_stage(step, size))
        size = stages[-1].size
    return stages


def input_window(size: Size, transform: Transform | None) -> Window | None:
    """The position of the model's input in a picture of a height and width; None for transforms with other steps.

    Examples:
        >>> transform = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(32)])
        >>> input_window((300, 451), transform).visible
        Box(left=75.1..., top=0.0, right=375.8..., bottom=300.0)
    """
    stages = transform_stages(size, transform)
    if stages is None:
        return None
    sides = [_side(size[axis], [_along(stage, axis) for stage in stages]) for axis in (0, 1)]
    (top, bottom), (left, right) = (frame for frame, _ in sides)
    (first, last), (begin, end) = (visible for _, visible in sides)
    return Window(Box(left, top, right, bottom), Box(begin, first, end, last))


_Interval = tuple[float, float]


def _along(stage: Resized | Cropped, axis: int) -> tuple[int | None, int]:
    """The start, None for a resize, and the size along an axis."""
    return (stage.start[axis] if isinstance(stage, Cropped) else None, stage.size[axis])


def _side(count: int, changes: list[tuple[int | None, int]]) -> tuple[_Interval, _Interval]:
    """Frame and visible part of one side of a picture."""
    first, last = 0.0, float(count)
    visible = (first, last)
    for start, size in changes:
        if start is not None:
            pixel = (last - first) / count
            first, last = first + start * pixel, first + (start + size) * pixel
            # The padding of a later crop does not bring back pixels that an earlier one cut off.
            visible = (max(visible[0], first), min(visible[1], last))
        count = size
    return (first, last), visible


def transform_steps(transform: Any) -> list[Any]:
    """The steps of a chain, chains within it flattened."""
    if type(transform) is ImageClassification:
        return [
            transforms.Resize(transform.resize_size, transform.interpolation),
            transforms.CenterCrop(transform.crop_size),
        ]
    if isinstance(transform, transforms.Compose | v2.Compose):
        return [inner for step in transform.transforms for inner in transform_steps(step)]
    return [transform]


def _resized(step: Any, before: Size) -> Resized:
    size = [step.size] if isinstance(step.size, int) else list(step.size)
    if len(size) == 1:  # the shorter side; the other in proportion, rounded as torchvision does
        long = int(size[0] * max(before) / min(before))
        if step.max_size is not None and long > step.max_size:
            size[0], long = int(step.max_size * size[0] / long), step.max_size
        size = [long, size[0]] if before[0] > before[1] else [size[0], long]
    return Resized((size[0], size[1]))


def _cropped(step: Any, before: Size) -> Cropped:
    height, width = step.size if len(step.size) == 2 else (*step.size, *step.size)
    return Cropped((_start(before[0], height), _start(before[1], width)), (height, width))


def _start(before: int, size: int) -> int:
    """The start of a center crop; negative for padding, whose odd pixel goes to the end."""
    return round((before - size) / 2.0) if before >= size else -((size - before) // 2)


_STAGES: dict[type, Callable[[Any, Size], Resized | Cropped]] = {
    transforms.Resize: _resized,
    v2.Resize: _resized,
    transforms.CenterCrop: _cropped,
    v2.CenterCrop: _cropped,
}
