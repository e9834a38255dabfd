"""The meaning of the values of a mask: ``object=1,3 ignore=255``, or colors as ``object=#ff0000``."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Integer
from numpy import ndarray

from classlens.errors import ClasslensError, suggestion

Values = Integer[ndarray, "height width"]
"""The number at each pixel of a mask: its value, its index in a palette, or a color as 65536 · R + 256 · G + B."""

PARTS = ("object", "ignore", "background")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_FORM = 'such as "object=1,3 ignore=255", or colors as "object=#ff0000"'
_SHOWN = 5


@dataclass(frozen=True)
class MaskValues:
    """The values of a mask by what their pixels show.

    Args:
        object: values of pixels that show the class of the photo; empty where the mask has two values, 0 and 1 or 255.
        ignore: values of pixels of which the mask does not say what they show.
        background: values of all other pixels; None for every other value.
        colors: whether the values are colors, 65536 · R + 256 · G + B.
    """

    object: tuple[int, ...] = ()
    ignore: tuple[int, ...] = ()
    background: tuple[int, ...] | None = None
    colors: bool = False

    def __str__(self) -> str:
        given = [(part, getattr(self, part)) for part in PARTS]
        return " ".join(f"{part}={','.join(map(self._shown, values))}" for part, values in given if values)

    def parts(
        self, values: Values, name: str
    ) -> tuple[Bool[ndarray, "height width"], Bool[ndarray, "height width"] | None]:
        """The pixels where a mask shows the object, and those to ignore; None where it names nothing to ignore.

        Raises ClasslensError for a mask without a pixel of the object, and for values of unknown meaning.
        """
        found = _distinct(values)
        if not self.object:
            shown = [value for value in found if value]
            if shown not in ([], [1], [255]):
                raise ClasslensError(
                    f"mask {name!r} holds {self._listed(found)}, which may mean anything: expected 0 for background "
                    f"and 1 or 255 for the object; say what the values mean as mask_values (--mask-values), {_FORM}"
                )
            return self._nonempty(values != 0, found, name), None
        unknown = set(found) - {*self.object, *self.ignore, *(found if self.background is None else self.background)}
        if unknown:
            raise ClasslensError(
                f"mask {name!r} holds {self._listed(sorted(unknown))} beside {str(self)!r}: expected no other values; "
                "name them too, or leave out background"
            )
        ignored = _among(values, self.ignore) if self.ignore else None
        return self._nonempty(_among(values, self.object), found, name), ignored

    def _nonempty(
        self, shows: Bool[ndarray, "height width"], found: list[int], name: str
    ) -> Bool[ndarray, "height width"]:
        """The pixels of the object; raises ClasslensError where there are none."""
        if shows.any():
            return shows
        sought = self._listed(list(self.object)) if self.object else "1 or 255"
        raise ClasslensError(
            f"mask {name!r} shows no object: expected a pixel of {sought}, and all are {self._listed(found)}; mend the "
            "mask, or leave the photo out"
        )

    def _shown(self, value: int) -> str:
        return f"#{value:06x}" if self.colors else str(value)

    def _listed(self, values: list[int]) -> str:
        texts = ", ".join(map(self._shown, values[:_SHOWN]))
        return texts if len(values) <= _SHOWN else f"{texts} and {len(values) - _SHOWN} more values"


def _distinct(values: Values) -> list[int]:
    """The values of a mask, each once; counting is many times faster than sorting."""
    found: list[int] = (
        np.flatnonzero(np.bincount(values.ravel(), minlength=256)) if values.dtype == np.uint8 else np.unique(values)
    ).tolist()
    return found


def _among(values: Values, chosen: tuple[int, ...]) -> Bool[ndarray, "height width"]:
    if values.dtype == np.uint8:
        table = np.zeros(256, dtype=bool)
        table[[value for value in chosen if value < 256]] = True
        chosen_pixels: Bool[ndarray, "height width"] = table[values]
        return chosen_pixels
    return np.isin(values, chosen)


def parse_mask_values(text: str | None) -> MaskValues:
    """The meaning of values as a user gives it; None for masks of two values.

    Examples:
        >>> parse_mask_values("object=1,3 ignore=255")
        MaskValues(object=(1, 3), ignore=(255,), background=None, colors=False)
        >>> str(parse_mask_values("object=#FF0000"))
        'object=#ff0000'
    """
    if text is None:
        return MaskValues()
    parts: dict[str, tuple[int, ...]] = {}
    colors: set[bool] = set()
    for word in text.split():
        part, equals, values = word.partition("=")
        if part not in PARTS or not equals:
            hint = suggestion(part, PARTS) if equals else ""
            raise ClasslensError(
                f"mask values {text!r} are not understood at {word!r}{hint}: give {', '.join(PARTS)} with "
                f"values, {_FORM}"
            )
        if part in parts:
            raise ClasslensError(f"mask values {text!r} name {part} twice: give its values once, between commas")
        numbers = [_number(text, value) for value in values.split(",")]
        colors |= {value.startswith("#") for value in values.split(",")}
        parts[part] = tuple(dict.fromkeys(numbers))
    if "object" not in parts:
        raise ClasslensError(f"mask values {text!r} do not say which show the object: give them, {_FORM}")
    if len(colors) > 1:
        raise ClasslensError(f"mask values {text!r} are numbers and colors: give either")
    every = [value for values in parts.values() for value in values]
    twice = next((value for value in every if every.count(value) > 1), None)
    result = MaskValues(**parts, colors=colors == {True})
    if twice is not None:
        raise ClasslensError(f"mask values {text!r} give two meanings to {result._shown(twice)}: give it one")
    return result


def _number(text: str, value: str) -> int:
    if _COLOR.fullmatch(value):
        return int(value[1:], 16)
    if value.isascii() and value.isdecimal():
        return int(value)
    raise ClasslensError(
        f"mask values {text!r} hold {value!r}, which is no whole number of at least 0 and no color: give them {_FORM}"
    )
