"""Explanations of images as a folder: overlays, methods side by side, animations over blocks, and the numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from classlens.analysis.labels import method_title
from classlens.errors import ClasslensError
from classlens.explain.custom import MapMethod
from classlens.explain.method import Method, MethodLike
from classlens.explain.registry import find_method, parse_method, short_name
from classlens.lens.lens import Lens
from classlens.lens.target import Target, class_indices
from classlens.lens.trace import Trace
from classlens.models.images import ImageLike, read_pictures
from classlens.render.figures.blending import Floats
from classlens.render.figures.maps import STRIP, Canvas, frames, overlay, side_by_side
from classlens.render.figures.style import plain, save

Animation = Literal["webp", "gif"]
# Longer sides in pixels: the largest of an overlay, the smallest and its enlargement (pixels stay sharp), and that of
# side-by-side panels and animations.
_MAX_SIDE = 2048
_MIN_SIDE, _ENLARGED = 256, 448
_PANEL = 800
# Durations of a frame and of the last frame, in milliseconds.
_FRAME, _LAST_FRAME = 400, 1600


def write_explanations(
    trace: Trace,
    target: Target,
    methods: Sequence[MethodLike],
    folder: Path,
    *,
    photos: Sequence[ImageLike] | None = None,
    first: int = 1,
    contour: bool = False,
    animate: Animation | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Write the pictures of every image of a trace, numbered from ``first``; returns the record of each image.

    ``write_explanations(lens.trace(["cat.png"]), "cat", ["class_gradient", "rollout"], Path("out"))``

    Writes ``01-class_gradient.png``, the map over the picture at the picture's resolution; ``01-methods.png``, all
    methods side by side; and with ``animate`` ``01-class_gradient.webp`` or ``.gif``, block after block on one scale,
    for methods that have a map for each block. ``contour`` adds lines of equal value to all of them. ``photos`` are the
    images that the trace was computed from. Maps are laid over them instead of the model's input, unless the transform
    leaves open which part of the photo the input is. ``options`` go to the methods that take them; options of one
    method follow its name, such as ``class_gradient:loss=logit``. Maps of other tools have the name of their function.
    """
    requests = [_parse(method, options) for method in dict.fromkeys(methods)]
    _check_names(requests)
    explanations = [trace.explain(target, method=request.given, **request.options) for request in requests]
    rows, columns = trace.recording.tokens.grid
    title_rivals = _rivals(trace, options)
    rivals = [_rivals(trace, request.options) for request in requests]
    records = []
    for image, name in enumerate(trace.names):
        canvas, canvas_record = _canvas(trace, image, None if photos is None else photos[image])
        small_canvas = _resized(canvas, _PANEL)
        number = f"{first + image:02d}"
        maps = {}
        record: dict[str, Any] = {"name": name, **canvas_record, "options": {}, "maps": {}}
        title_rival = None if title_rivals is None else title_rivals[image]
        for request, explanation, by_image in zip(requests, explanations, rivals, strict=True):
            values = explanation[image]
            grid = values.sum([dim for dim in values.dims if dim != "token"]).values.reshape(rows, columns)
            signed = request.is_signed(grid)
            record["target"] = str(explanation.target_name.values[image])
            record["target_index"] = int(explanation.target.values[image])
            rival = None if by_image is None else by_image[image]
            record["options"][request.text] = _all_options(request, rival)
            record["maps"][request.text] = six_digits(grid)
            maps[_title(request, record["target"], rival, title_rival)] = (grid, signed)
            overlay(canvas, grid, signed=signed, contour=contour).save(folder / f"{number}-{request.file_stem}.png")
            if animate is not None and "block" in values.dims:
                blocks = values.sum([dim for dim in values.dims if dim == "head"]).values.reshape(-1, rows, columns)
                block_numbers = values.block.values.tolist()
                pictures = list(frames(small_canvas, blocks, block_numbers, signed=signed, contour=contour))
                _animate(pictures, folder / f"{number}-{request.file_stem}.{animate}")
        title = plain(record["target"])
        if title_rival is not None:
            record["against"] = title_rival
            title += f" rather than {plain(title_rival)}"
        title += f" in {plain(Path(name).name)}"
        save(side_by_side(small_canvas, maps, title, contour=contour), folder / f"{number}-methods.png")
        records.append(record)
    return records


def _rivals(trace: Trace, options: Mapping[str, Any]) -> list[str] | None:
    """For each image, the name of the class that the target is explained against."""
    if options.get("against") is None:
        return None
    return [
        trace.classes.names[index] for index in class_indices(trace.classes, options["against"], len(trace)).tolist()
    ]


@dataclass(frozen=True)
class _Request:
    """A method by its text, with all its options."""

    text: str
    given: MethodLike
    options: dict[str, Any]

    @property
    def method(self) -> Method:
        return find_method(self.given)

    def is_signed(self, grid: Floats) -> bool:
        """Whether a map is drawn in two colors; one of another tool says by its values whether it is signed."""
        signed = self.method.is_signed(self.options)
        return signed and not (isinstance(self.method, MapMethod) and bool((grid >= 0).all()))

    @property
    def file_stem(self) -> str:
        """The text in characters that every file system accepts."""
        return re.sub(r"[^\w=.-]+", "_", self.text.replace(":", "-"))


def _parse(method: MethodLike, options: Mapping[str, Any]) -> _Request:
    given, own_options = parse_method(method) if isinstance(method, str) else (method, {})
    text = short_name(method)
    if hasattr(method, "stored_map"):
        text, sign = method.stored_map
        own_options = {"sign": sign}
    shared = {key: value for key, value in options.items() if key in find_method(given).options}
    return _Request(text, given, shared | own_options)


def _check_names(requests: Sequence[_Request]) -> None:
    texts = [request.text for request in requests]
    for text in texts:
        if texts.count(text) > 1:
            raise ClasslensError(f"two methods are named {text!r}, as pictures name them: give one another name")
    if any(request.file_stem == "methods" for request in requests):
        raise ClasslensError("a method is named 'methods', as the picture of all methods is: give it another name")


def _all_options(request: _Request, rival: str | None) -> dict[str, Any]:
    """All options of a method with their values, defaults too; the class it is explained against by its name."""
    options = {**request.method.defaults, **request.method.resolve(request.options)}
    if "against" in options:
        options["against"] = rival
    return {key: value for key, value in options.items() if value is not None}


def _title(request: _Request, target: str, rival: str | None, title_rival: str | None) -> str:
    """Label of a method with options other than the defaults, and its classes where the figure's title names others.

    ``rival`` is the class that the method explains against, ``title_rival`` that of the figure's title.
    """
    against = {key: value for key, value in request.options.items() if key == "against"}
    defaults = {**request.method.defaults, **request.method.resolve(against)}
    changed = {key: value for key, value in request.options.items() if key != "against" and value != defaults[key]}
    title = method_title(request.method.label, changed)
    if rival != title_rival and request.method.of_class:
        title += f": {plain(target)} alone" if rival is None else f": rather than {plain(rival)}"
    return title


def six_digits(grid: Floats) -> list[list[float]]:
    """Numbers with six significant digits, row by row."""
    return [[float(f"{value:.6g}") for value in row] for row in grid.tolist()]


def _canvas(trace: Trace, image: int, photo: ImageLike | None) -> tuple[Canvas, dict[str, Any]]:
    """The picture that the maps of an image are laid over, and its entries in the record."""
    if photo is not None:
        picture = read_pictures(photo)[0].image
        window = trace.window(picture)
        if window is not None:
            frame = [round(side, 3) for side in window.frame]
            return _resized(Canvas(picture, window), _MAX_SIDE), {"resolution": "photo", "frame": frame}
    return _resized(Canvas(trace.picture(image)), _MAX_SIDE), {"resolution": "model"}


def _resized(canvas: Canvas, max_side: int) -> Canvas:
    """The canvas within ``max_side``, and enlarged where it is too small to look at."""
    side = max(canvas.picture.size)
    if side > max_side:
        return canvas.resized(max_side, Image.Resampling.LANCZOS)
    if side < _MIN_SIDE:
        return canvas.resized(side * -(-_ENLARGED // side), Image.Resampling.NEAREST)
    return canvas


def _animate(pictures: Sequence[Image.Image], path: Path) -> None:
    """Write an endless animation that rests on its last frame."""
    duration = [_FRAME] * (len(pictures) - 1) + [_LAST_FRAME]
    if path.suffix == ".gif":
        pictures = [_with_palette(picture) for picture in pictures]
        options: dict[str, Any] = {"optimize": False}
    else:
        options = {"lossless": True}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=duration, loop=0, **options)


def _with_palette(picture: Image.Image) -> Image.Image:
    """A frame with its own palette, as weak and strong maps share few colors.

    The palette is chosen from a sample in which the strip with the color bar has half of the area. Otherwise the bar
    would get few colors.
    """
    width, height = picture.size
    sample = Image.new("RGB", (width, 2 * height))
    sample.paste(picture, (0, 0))
    sample.paste(picture.crop((0, height - STRIP, width, height)).resize((width, height)), (0, height))
    palette = sample.quantize(256, Image.Quantize.MEDIANCUT)
    return picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def explanation_json(records: Sequence[dict[str, Any]], lens: Lens, *, checkpoint: str | None, version: str) -> str:
    """Maps of every image and method, row by row with six digits, and the model that they come from.

    ``checkpoint`` is the file of the weights, None for the model's own.
    """
    model = {
        "classlens": version,
        "model": lens.view.name,
        "checkpoint": checkpoint,
        "transform": repr(lens.preprocessing.transform)[:2000],
        "dtype": str(lens.view.dtype).removeprefix("torch."),
    }
    return json.dumps({**model, "images": list(records)}, allow_nan=False)
