"""The strongest tokens against a sort of all tokens."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from classlens.core.top_tokens import Candidates, TopTokens


def sorted_tokens(values: np.ndarray, k: int, first: int) -> list[list[tuple[float, int, int]]]:
    """For each row ``(value, image, token)`` of each image, the largest first; ties by image, then by token."""
    images, tokens, rows = values.shape
    lists = []
    for row in range(rows):
        every = [(float(values[i, t, row]), i, t + first) for i in range(images) for t in range(tokens)]
        order = sorted(every, key=lambda entry: (-entry[0], entry[1], entry[2]))
        firsts = {image: (value, image, token) for value, image, token in reversed(order)}
        lists.append(sorted(firsts.values(), key=lambda entry: (-entry[0], entry[1]))[:k])
    return lists


def listed(top: TopTokens) -> list[list[tuple[float, int, int]]]:
    return [
        [(float(v), int(i), int(t)) for v, i, t in zip(*columns, strict=True) if i >= 0]
        for columns in zip(top.value, top.image, top.token, strict=True)
    ]


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 5), st.lists(st.integers(0, 9), max_size=3))
def test_any_order_and_any_split(seed: int, k: int, workers: int, cuts: list[int]) -> None:
    """Few distinct values, so that there are ties; a batch of each worker is sent twice."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-1, 3, (10, 3, 4)).astype(np.float32)
    edges = sorted({0, 10, *cuts})
    batches = [np.arange(*edge) for edge in itertools.pairwise(edges)]
    rng.shuffle(batches)
    total = TopTokens(4, k)
    kept = [TopTokens(4, k) for _ in range(workers)]
    sent: list[Candidates] = []
    for number, batch in enumerate(batches):
        worker = kept[number % workers]
        part = torch.from_numpy(values[batch])
        # Two halves of the rows, as blocks of a model come one after another.
        halves = [
            worker.candidates(part[..., r.start : r.stop], batch, range(5, 8), r) for r in (range(2), range(2, 4))
        ]
        sent.append(Candidates.joined(halves))
        worker.add(sent[-1])
    rng.shuffle(sent)
    for candidates in [*sent, *sent[:1]]:
        total.add(candidates)
    assert listed(total) == sorted_tokens(values, k, first=5)


def test_later_batches_send_little() -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 50, 30)).astype(np.float32))
    top = TopTokens(30, 9)
    counts = []
    for start in range(0, 40, 10):
        candidates = top.candidates(values[start : start + 10], np.arange(start, start + 10), range(50), range(30))
        top.add(candidates)
        counts.append(len(candidates.row))
    # 9 of the first 10 images, then those among the largest 9 of all so far: 9/2, 9/3 and 9/4 of a row on average.
    assert counts[0] == 30 * 9
    assert all(count < 30 * 9 for count in counts[1:])


def test_equal_values_of_a_silent_row_are_few() -> None:
    top = TopTokens(2, 9)
    for start in range(0, 20, 4):
        candidates = top.candidates(torch.zeros(4, 5, 2), np.arange(start, start + 4), range(5), range(2))
        top.add(candidates)
    assert len(candidates.row) == 0, "no later image comes before an earlier one of the same value"
    assert [(image, token) for _, image, token in listed(top)[0]] == [(number, 0) for number in range(9)]
