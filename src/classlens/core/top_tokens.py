"""The images of a data set with the largest values of each row, such as a unit, and their tokens, kept in one pass."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

TOP = 9
"""Number of images of a row."""


class Candidates(NamedTuple):
    """The largest token of images that may be among the largest of a row, in any order."""

    row: Int[ndarray, " candidates"]
    value: Float[ndarray, " candidates"]
    image: Int[ndarray, " candidates"]
    token: Int[ndarray, " candidates"]

    @classmethod
    def joined(cls, parts: list[Candidates]) -> Candidates:
        """All candidates of some parts."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


class TopTokens:
    """The ``k`` images with the largest value of each row, and the token that has it.

    Equal values go by image, and those of one image by token. Any order and any split of the images gives the same
    result, and so does an image that is added twice.

    Args:
        rows: number of rows.
        k: number of images of a row.
    """

    def __init__(self, rows: int, k: int = TOP) -> None:
        self.value = np.full((rows, k), -np.inf, dtype=np.float32)
        self.image = np.full((rows, k), -1, dtype=np.int32)
        self.token = np.full((rows, k), -1, dtype=np.int32)

    def add(self, candidates: Candidates) -> None:
        """Take candidates."""
        rows, k = np.unique(candidates.row), self.value.shape[1]
        kept = Candidates(
            np.repeat(rows, k), self.value[rows].ravel(), self.image[rows].ravel(), self.token[rows].ravel()
        )
        kept = Candidates(*(array[kept.image >= 0] for array in kept))
        row, value, image, token = Candidates.joined([kept, candidates])
        order = np.lexsort((token, image, -value, row))
        row, value, image, token = row[order], value[order], image[order], token[order]
        repeated = np.zeros(len(row), dtype=bool)
        repeated[1:] = (row[1:] == row[:-1]) & (image[1:] == image[:-1])
        row, value, image, token = (array[~repeated] for array in (row, value, image, token))
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        row, value, image, token, rank = (array[rank < k] for array in (row, value, image, token, rank))
        self.value[row, rank], self.image[row, rank], self.token[row, rank] = value, image, token

    def candidates(
        self, values: Float[Tensor, "image token row"], images: Int[ndarray, " image"], tokens: range, rows: range
    ) -> Candidates:
        """Images that reach the smallest value kept so far.

        Args:
            values: values of some rows.
            images: index of each image in the data set.
            tokens: positions of the tokens in the sequence.
            rows: the rows.
        """
        k, part = self.value.shape[1], slice(rows.start, rows.stop)
        if not len(values):
            return Candidates(*(np.zeros(0, dtype=dtype) for dtype in (np.int64, np.float32, np.int32, np.int32)))
        largest = values.amax(dim=1).nan_to_num(nan=-torch.inf)
        last = torch.from_numpy(self.value[part, -1])
        # An image that comes later has to be above an equal value, an earlier one need not.
        later = torch.from_numpy(self.image[part, -1] < images.min())
        threshold = torch.where(later, torch.nextafter(last, torch.tensor(torch.inf)), last).to(largest.device)
        fresh = torch.from_numpy(self.image[part, -1] < 0).to(largest.device)
        threshold[fresh] = largest[:, fresh].topk(k, dim=0).values[-1] if len(largest) > k else -torch.inf
        index, row = ((largest >= threshold) & (largest > -torch.inf)).nonzero(as_tuple=True)
        value = largest[index, row]
        token = (values[index, :, row] == value[:, None]).to(torch.uint8).argmax(dim=1)  # the first of equal ones
        arrays = [each.cpu().numpy() for each in (row, value, index, token)]
        return Candidates(
            arrays[0] + rows.start,
            arrays[1],
            images[arrays[2]].astype(np.int32),
            (arrays[3] + tokens.start).astype(np.int32),
        )
