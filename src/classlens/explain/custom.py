"""Maps that other tools make: a function of a user as an explanation method."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.pixel_maps import cell_means
from classlens.errors import ClasslensError, cause, unknown
from classlens.explain.batching import slices
from classlens.explain.method import MapFunction, Method
from classlens.forward.lending import lent
from classlens.forward.recording import Recording
from classlens.models.binary import is_binary
from classlens.models.user_file import function_of

Sign = Literal["signed", "absolute", "positive"]
SIGNS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "signed": lambda maps: maps,
    "absolute": torch.abs,
    "positive": lambda maps: maps.clamp_min(0),
}
assert tuple(SIGNS) == get_args(Sign)


@dataclass(frozen=True)
class MapMethod(Method):
    """A method whose maps have a resolution of their own; ``run`` returns their means over the cells of tokens."""

    native: Callable[..., Float[Tensor, "image row column"]] = field(kw_only=True)
    """``native(recording, target, sign="signed")``."""
    digest: str = field(kw_only=True)
    """Digest of the code that makes the maps."""

    def is_signed(self, options: Mapping[str, Any]) -> bool:
        return bool(options.get("sign", "signed") == "signed")


def function_method(function: MapFunction) -> MapMethod:
    """The method of a function in Python; it is named as the function is."""
    return _method(function, function_name(function), _digest(_source(function)))


def _source(function: Callable[..., Any]) -> str:
    """The code of a function, with the arguments of a ``partial`` or the attributes of an object."""
    if isinstance(function, partial):
        return f"{_source(function.func)}{function.args}{sorted(function.keywords.items())}"
    is_object = not inspect.isroutine(function)
    try:
        source = inspect.getsource(type(function) if is_object else function)
    except (OSError, TypeError):  # typed at a prompt
        source = ""
    return f"{source}{vars(function)}" if is_object and hasattr(function, "__dict__") else source


def function_name(function: Callable[..., Any]) -> str:
    """The name of a function, of the one within a ``partial``, or of the class of an object."""
    while isinstance(function, partial):
        function = function.func
    return re.sub(r"[^\w-]", "", getattr(function, "__name__", type(function).__name__))


def file_method(name: str) -> MapMethod:
    """The method of a function in a file, ``file.py:function``; the file is run again when it has changed."""
    path, _, function = name.rpartition(":")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""  # `function_of` says what is wrong
    return _file_method(name, function, _digest(text))


@lru_cache(maxsize=16)
def _file_method(name: str, function: str, digest: str) -> MapMethod:
    return _method(function_of("method", name), function, digest)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _method(function: MapFunction, name: str, digest: str) -> MapMethod:
    def native(recording: Recording, target: Int[Tensor, " image"], *, sign: Sign = "signed") -> Tensor:
        if sign not in SIGNS:
            raise unknown("sign", sign, SIGNS)
        return SIGNS[sign](maps_of(function, name, recording, target))

    def run(recording: Recording, target: Int[Tensor, " image"], *, sign: Sign = "signed") -> Tensor:
        means = cell_means(native(recording, target, sign=sign), recording.tokens.grid)
        return means.to(recording.dtype)

    return MapMethod(
        run,
        ("image", "token"),
        label=name,
        about="Maps of a function of yours.",
        signed=True,
        native=native,
        digest=digest,
    )


def maps_of(
    function: MapFunction, name: str, recording: Recording, target: Int[Tensor, " image"]
) -> Float[Tensor, "image row column"]:
    """The maps of the images of a recording at their own resolution, in float64; batches are those of the recording.

    Raises ClasslensError for a function that raises, returns something else, or leaves something on the model.
    """
    view = recording.view
    if is_binary(view):
        raise ClasslensError(
            f"method {name!r} cannot explain model {view.name!r}, whose module has one logit for two classes: give a "
            "module with two logits, such as 0 and that one"
        )
    recording.require_same_model()
    recording.require_same_edits()
    parts = []
    for images in slices(len(recording), recording.batch_size):
        pixels = recording.pixels[images].to(view.device, view.dtype, copy=True).detach()
        with lent(view.module, f"method {name!r}"):
            try:
                returned: object = function(view.module, pixels, target[images].to(view.device, torch.int64, copy=True))
            except (ClasslensError, torch.OutOfMemoryError):
                raise
            except (Exception, SystemExit) as error:
                raise ClasslensError(
                    f"method {name!r} raised {type(error).__name__} ({cause(error)}): call the function by itself with "
                    "the model, pixels [image, channel, height, width] and target [image] to see where"
                ) from error
        parts.append(_checked_maps(returned, name, tuple(pixels.shape)))
    if len({part.shape[1:] for part in parts}) > 1:
        raise ClasslensError(f"method {name!r} returned maps of different sizes for images of one: return one size")
    return torch.cat(parts)


def _checked_maps(returned: object, name: str, pixels: tuple[int, ...]) -> Float[Tensor, "image row column"]:
    expected = (
        f"expected importance [image, row, column] of {pixels[0]} images at any resolution, or one value for each of "
        f"the pixels {list(pixels)}"
    )
    if not isinstance(returned, Tensor | np.ndarray):
        raise ClasslensError(f"method {name!r} returned a {type(returned).__name__}: {expected}")
    try:
        if isinstance(returned, np.ndarray):  # torch takes writable arrays of native byte order without reversed axes
            returned = returned.astype(returned.dtype.newbyteorder("="), order="C")
        maps = torch.as_tensor(returned).detach().cpu().to_dense()
        maps = maps if maps.is_complex() else maps.double()
    except (TypeError, ValueError, RuntimeError):
        raise ClasslensError(f"method {name!r} returned an array of {returned.dtype}: {expected}") from None
    if maps.ndim == 4 and (maps.shape[1] == 1 or tuple(maps.shape) == pixels):
        maps = maps.sum(dim=1)
    if maps.ndim != 3 or len(maps) != pixels[0] or not maps.numel() or maps.is_complex():
        raise ClasslensError(f"method {name!r} returned {maps.dtype} of shape {list(maps.shape)}: {expected}")
    if not bool(torch.isfinite(maps).all()):
        raise ClasslensError(
            f"method {name!r} returned values that are not finite, which have no order: check its divisions, or run "
            "the model in float32"
        )
    return maps
