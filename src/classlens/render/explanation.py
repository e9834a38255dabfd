"""Explanations of images as a folder: overlays, methods side by side, animations over blocks, and the numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from classlens.explain.class_gradient import resolved_loss
from classlens.explain.registry import METHODS, parse_method
from classlens.lens.lens import Lens
from classlens.lens.target import Target, class_indices
from classlens.lens.trace import Trace
from classlens.models.images import ImageLike, read_pictures
from classlens.render.figures.maps import STRIP, Canvas, Floats, frames, overlay, side_by_side
from classlens.render.figures.style import plain, save

Animation = Literal["webp", "gif"]
# The longer side of files, of smaller pictures (every pixel a square), and of side by side and animated ones.
_LONGEST = 2048
_SMALL, _ENLARGED = 256, 448
_PANEL = 800
_FRAME, _LAST = 400, 1600  # milliseconds, of a frame and of the last one


def write_explanations(
    trace: Trace,
    target: Target,
    methods: Sequence[str],
    folder: Path,
    *,
    photos: Sequence[ImageLike] | None = None,
    first: int = 1,
    contour: bool = False,
    animate: Animation | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Write the pictures of every image of a trace, numbered from ``first``; returns the record of each.

        write_explanations(lens.trace(["cat.png"]), "cat", ["class_gradient", "rollout"], Path("out"))

    ``01-class_gradient.png``: the map over the picture, at the picture's resolution. ``01-methods.png``: all methods
    side by side. ``01-class_gradient.webp`` or ``.gif``, with ``animate``: block after block, on one scale, for methods
    that tell blocks apart. All of them have lines of equal value with ``contour``. ``photos`` are what the trace was
    made of: maps are laid over them rather than over what the model saw, where it is known what that is of them.
    ``options`` go to the methods that take them; those of one alone stand behind its name, such as
    ``class_gradient:loss=logit``.
    """
    chosen = [_chosen(text, options) for text in dict.fromkeys(methods)]
    found = [trace.explain(target, method=one.name, **one.options) for one in chosen]
    rows, columns = trace.recording.tokens.grid
    against = _against(trace, options)
    rivals = [_against(trace, one.options) for one in chosen]
    records = []
    for image, name in enumerate(trace.names):
        canvas, record = _canvas(trace, image, None if photos is None else photos[image])
        small = _within(canvas, _PANEL)
        number = f"{first + image:02d}"
        maps = {}
        record = {"name": name, **record, "options": {}, "maps": {}}
        for one, values, others in zip(chosen, found, rivals, strict=True):
            own, signed = values[image], METHODS[one.name].signed
            grid = own.sum([dim for dim in own.dims if dim != "token"]).values.reshape(rows, columns)
            record["target"] = str(values.target_name.values[image])
            record["target_index"] = int(values.target.values[image])
            rival, shown = (None if each is None else each[image] for each in (others, against))
            record["options"][one.text] = _options(one, rival)
            record["maps"][one.text] = significant(grid)
            maps[_label(one, record["target"], rival, shown)] = (grid, signed)
            overlay(canvas, grid, signed=signed, contour=contour).save(folder / f"{number}-{one.file}.png")
            if animate is not None and "block" in own.dims:
                blocks = own.sum([dim for dim in own.dims if dim == "head"]).values.reshape(-1, rows, columns)
                numbers = own.block.values.tolist()
                pictures = list(frames(small, blocks, numbers, signed=signed, contour=contour))
                _animate(pictures, folder / f"{number}-{one.file}.{animate}")
        title = plain(record["target"])
        if against is not None:
            record["against"] = against[image]
            title += f" rather than {plain(against[image])}"
        title += f" in {plain(Path(name).name)}"
        save(side_by_side(small, maps, title, contour=contour), folder / f"{number}-methods.png")
        records.append(record)
    return records


def _against(trace: Trace, options: Mapping[str, Any]) -> list[str] | None:
    """The name of the other class of each image."""
    if options.get("against") is None:
        return None
    return [
        trace.classes.names[index] for index in class_indices(trace.classes, options["against"], len(trace)).tolist()
    ]


@dataclass(frozen=True)
class _Chosen:
    """A method as it was asked for, with all options that it was given."""

    text: str
    name: str
    options: dict[str, Any]

    @property
    def file(self) -> str:
        """The text in what any file system takes."""
        return re.sub(r"[^\w=.-]+", "_", self.text.replace(":", "-"))


def _chosen(text: str, options: Mapping[str, Any]) -> _Chosen:
    name, own = parse_method(text)
    return _Chosen(text, name, {key: one for key, one in options.items() if key in METHODS[name].options} | own)


def _options(chosen: _Chosen, rival: str | None) -> dict[str, Any]:
    """All options of a method as they were, those that were left out, too; another class by its name."""
    found = {**METHODS[chosen.name].defaults, **chosen.options}
    if "against" in found:
        found["loss"] = resolved_loss(found["loss"], found["against"])
        found["against"] = rival
    return {key: value for key, value in found.items() if value is not None}


def _label(chosen: _Chosen, target: str, rival: str | None, shown: str | None) -> str:
    """A method's name with its options, and with its classes where they are not those of the title.

    ``rival`` is the other class that it speaks of, ``shown`` that of the title.
    """
    label, known = chosen.name.replace("_", " "), METHODS[chosen.name]
    usual = {**known.defaults, "loss": "cross_entropy" if rival is None else "logit"}
    for key, value in chosen.options.items():
        if key != "against" and value != usual[key]:
            label += f", {key} {str(value).replace('_', ' ')}"
    if rival != shown and known.of_class:
        label += f": {plain(target)} alone" if rival is None else f": rather than {plain(rival)}"
    return label


def significant(grid: Floats) -> list[list[float]]:
    """Six digits of each number, however small it is."""
    return [[float(f"{value:.6g}") for value in row] for row in grid.tolist()]


def _canvas(trace: Trace, image: int, photo: ImageLike | None) -> tuple[Canvas, dict[str, Any]]:
    """What to lay the maps of an image over, and what to record of that."""
    if photo is not None:
        picture = read_pictures(photo)[0].image
        window = trace.window(picture)
        if window is not None:
            seen = [round(side, 3) for side in window.frame]
            return _within(Canvas(picture, window), _LONGEST), {"resolution": "photo", "frame": seen}
    return _within(Canvas(trace.picture(image)), _LONGEST), {"resolution": "model"}


def _within(canvas: Canvas, longest: int) -> Canvas:
    """Not larger than ``longest``, and not too small to look at."""
    size = max(canvas.picture.size)
    if size > longest:
        return canvas.sized(longest, Image.Resampling.LANCZOS)
    if size < _SMALL:
        return canvas.sized(size * -(-_ENLARGED // size), Image.Resampling.NEAREST)
    return canvas


def _animate(pictures: Sequence[Image.Image], path: Path) -> None:
    """One picture after another, over and over, with a rest on the last."""
    duration = [_FRAME] * (len(pictures) - 1) + [_LAST]
    if path.suffix == ".gif":
        pictures = [_with_palette(one) for one in pictures]
        options: dict[str, Any] = {"optimize": False}
    else:
        options = {"lossless": True}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=duration, loop=0, **options)


def _with_palette(picture: Image.Image) -> Image.Image:
    """A frame with a palette of its own: the colors of weak and of strong maps hardly meet.

    Half of what it is chosen by is the scale, which would else have a few colors only.
    """
    width, height = picture.size
    sample = Image.new("RGB", (width, 2 * height))
    sample.paste(picture, (0, 0))
    sample.paste(picture.crop((0, height - STRIP, width, height)).resize((width, height)), (0, height))
    palette = sample.quantize(256, Image.Quantize.MEDIANCUT)
    return picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def explanation_json(records: Sequence[dict[str, Any]], lens: Lens, *, checkpoint: str | None, version: str) -> str:
    """The numbers behind the pictures: of every image and method, the map row by row; and what made them.

    Numbers have six digits. ``checkpoint`` is the file that the weights are of, None for the model's own.
    """
    about = {
        "classlens": version,
        "model": lens.view.name,
        "checkpoint": checkpoint,
        "transform": repr(lens.preprocessing.transform)[:2000],
        "dtype": str(lens.view.dtype).removeprefix("torch."),
    }
    return json.dumps({**about, "images": list(records)}, allow_nan=False)
