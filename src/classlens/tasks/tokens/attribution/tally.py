"""The strongest tokens of all heads or units so far, and the images that they come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from classlens.core.arrays import Array
from classlens.core.top_tokens import Candidates, TopTokens

_DIGEST = "digest"


@dataclass(frozen=True, eq=False)
class TallyPart:
    """Candidates of a batch.

    Args:
        group: the group with the values of the same images.
        images: the batch.
        content: that of its images.
        candidates: tokens that may be among the strongest.
        active: number of tokens with a positive value, by row; None where they are not counted.
        tokens: number of tokens.
    """

    group: str
    images: range
    content: Int[ndarray, " image"]
    candidates: Candidates
    active: Int[ndarray, " row"] | None
    tokens: int


class Tally:
    """The strongest tokens of each row over the batches so far; a batch that comes twice counts once."""

    def __init__(self, images: int, rows: int) -> None:
        self.top = TopTokens(rows)
        self.active = np.zeros(rows, dtype=np.int64)
        self.tokens = 0
        self.included = np.zeros(images, dtype=bool)
        self.content = np.zeros(images, dtype=np.int64)

    def add(self, part: TallyPart) -> None:
        """Take a batch."""
        images = slice(part.images.start, part.images.stop)
        if self.included[images].all():
            return
        self.top.add(part.candidates)
        if part.active is not None:
            self.active += part.active
        self.tokens += part.tokens
        self.included[images], self.content[images] = True, part.content

    @property
    def digest(self) -> str:
        """SHA-256 of the tally."""
        return _digest(self._arrays()).tobytes().hex()

    def to_bytes(self) -> bytes:
        """The tally as a file."""
        arrays = self._arrays()
        return save(arrays | {_DIGEST: _digest(arrays)})

    @classmethod
    def from_bytes(cls, data: bytes, images: int, rows: int) -> Tally | None:
        """The tally of a file; None for one that is damaged or of other sizes."""
        tally = cls(images, rows)
        expected = {name: (array.shape, array.dtype) for name, array in tally._arrays().items()}
        try:
            arrays = load(data)
        except (SafetensorError, ValueError, KeyError):
            return None
        digest = arrays.pop(_DIGEST, None)
        if digest is None or {name: (array.shape, array.dtype) for name, array in arrays.items()} != expected:
            return None
        if not np.array_equal(digest, _digest(arrays)):
            return None
        tally.top.value, tally.top.image, tally.top.token = arrays["value"], arrays["image"], arrays["token"]
        tally.active, tally.included, tally.content = arrays["active"], arrays["included"], arrays["content"]
        tally.tokens = int(arrays["tokens"][0])
        return tally

    def _arrays(self) -> dict[str, Array]:
        return {
            "value": self.top.value,
            "image": self.top.image,
            "token": self.top.token,
            "active": self.active,
            "tokens": np.array([self.tokens], dtype=np.int64),
            "included": self.included,
            "content": self.content,
        }


def _digest(arrays: dict[str, Array]) -> Array:
    """SHA-256 of the arrays in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(np.ascontiguousarray(arrays[name]).tobytes())
    return np.frombuffer(total.digest(), dtype=np.uint8)
