"""A mask drawn by hand, and what each token shows after a resize and a crop: pixel by pixel."""

from __future__ import annotations

from collections import Counter

import numpy as np
from torchvision import transforms

from classlens.core.arrays import Array
from classlens.data.dataset import Dataset
from classlens.data.loading import ImageReader
from classlens.models.transforms import Preprocessing

# "o" shows the object, "x" is to be ignored, "b" shows another object, "." the background.
DRAWING = [
    "ooo.............",
    "ooo......x......",
    "...bb...xxx.....",
    "...bb....oox....",
    "........oooox...",
    ".......ooooox...",
    "......oooooox...",
    ".....oooooooxx..",
    "....oooooooooxx.",
    "...oooooooooooxx",
    "...ooo..oooooox.",
    "...oo....ooooox.",
    "..xoo....xoooox.",
    "..xxx.....xxxx..",
    "bb...........x..",
    "bb..............",
]
SIDE, RESIZED, CROP = 16, 12, 8
_FLAGS = {"o": 1, "x": -1, "b": 0, ".": 0}


def values(**numbers: int) -> Array:
    """The drawing with a number for each of its letters; ``dot`` for the background."""
    by_letter = {"." if letter == "dot" else letter: number for letter, number in numbers.items()}
    return np.array([[by_letter[letter] for letter in row] for row in DRAWING], dtype=np.uint8)


def expected(grid: int) -> list[list[int]]:
    """Resize to 12×12 by nearest source pixel, center crop of 8×8, then a grid of tokens, one by one."""
    large = [[DRAWING[i * SIDE // RESIZED][j * SIDE // RESIZED] for j in range(RESIZED)] for i in range(RESIZED)]
    first = (RESIZED - CROP) // 2
    cropped = [row[first : first + CROP] for row in large[first : first + CROP]]
    step = CROP // grid
    return [[_FLAGS[cropped[i * step][j * step]] for j in range(grid)] for i in range(grid)]


def counts() -> dict[int, int]:
    """How many pixels of the cropped picture show the object (1), its context (0) or neither (-1)."""
    return dict(Counter(flag for row in expected(CROP) for flag in row))


def check(dataset: Dataset, index: int = 0) -> None:
    """The drawing stands behind an image of a data set, token for token and pixel for pixel."""
    chain = [transforms.Resize((RESIZED, RESIZED)), transforms.CenterCrop(CROP), transforms.ToTensor()]
    for grid in (2, 4, CROP):
        reader = ImageReader(dataset, Preprocessing(transforms.Compose(chain)), (3, CROP, CROP), (grid, grid), True)
        batch = reader.batch(range(index, index + 1))
        assert (batch.problems, batch.mask_problems) == ({}, {})
        assert batch.shows_class[0].reshape(grid, grid).tolist() == expected(grid)
    assert dict(Counter(batch.shows_class[0].tolist())) == counts()
    mask, ignored = dataset.mask(index), dataset.ignored(index)
    assert mask is not None
    assert mask.sum() == "".join(DRAWING).count("o")
    assert ignored is not None
    assert ignored.sum() == "".join(DRAWING).count("x")
