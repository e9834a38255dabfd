"""Memories against sorting, one class and one memory after another, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from classlens.core import memories as module
from classlens.core.attention import Branches, Output
from classlens.core.memories import (
    Memories,
    agree_by_class,
    agree_by_value,
    match_top1,
    memories,
    memory_scores,
    strongest,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def literal(embedding: Tensor, values: Tensor) -> tuple[list[list[int]], list[list[int]], list[float]]:
    """``values``: a row a memory. For each class its memories, for each memory its classes, and the largest cosine."""
    by_class, by_value, cosines = [], [], []
    for row in embedding:
        scores = [float(row @ value) for value in values]
        by_class.append(sorted(range(len(values)), key=lambda j, s=scores: -s[j])[:5])  # type: ignore[misc]
        cosines.append(max(float(row @ v / (row.norm() * v.norm())) if v.norm() > 0 else 0.0 for v in values))
    for value in values:
        scores = [float(row @ value) for row in embedding]
        by_value.append(sorted(range(len(embedding)), key=lambda c, s=scores: -s[c])[:5])  # type: ignore[misc]
    return by_class, by_value, cosines


@pytest.mark.parametrize("scratch", [1, 40, 2**24])
@pytest.mark.parametrize("scaled", [False, True])
def test_every_class_and_every_memory(scratch: int, scaled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few memories are looked at at once."""
    monkeypatch.setattr(module, "_SCRATCH", scratch)
    embedding, weight = drawn(7, 6), drawn(6, 23, seed=1)
    weight[:, 4] = 0
    scale = drawn(6, seed=2) if scaled else None
    found = memories(embedding, Output(weight, bias=drawn(6, seed=3), scale=scale))
    by_class, by_value, cosines = literal(embedding, (weight if scale is None else weight * scale[:, None]).T)
    assert found.by_class.tolist() == by_class
    others = [memory for memory in range(23) if memory != 4]  # all classes tie on a value of zeros
    assert found.by_value[others].tolist() == [by_value[memory] for memory in others]
    torch.testing.assert_close(found.agreement, torch.tensor(cosines, dtype=torch.float64))


def test_fewer_memories_and_classes_than_five() -> None:
    embedding, weight = drawn(3, 4), drawn(4, 2, seed=1)
    found = memories(embedding, Output(weight))
    by_class, by_value, _ = literal(embedding, weight.T)
    assert found.by_class.tolist() == by_class
    assert found.by_value.tolist() == by_value
    assert strongest(drawn(6, 2)).shape == (6, 2)


def test_branches_stand_in_a_row() -> None:
    parts = tuple(Output(drawn(4, 3, seed=seed), scale=drawn(4, seed=9 + seed)) for seed in (1, 2))
    embedding = drawn(8, 4)
    found = memories(embedding, Branches(parts))
    values = torch.cat([(part.weight * part.scale[:, None]).T for part in parts if part.scale is not None])
    assert found.by_class.tolist() == literal(embedding, values)[0]


def test_half_precision_is_scored_in_float32() -> None:
    embedding, weight = drawn(9, 8).bfloat16(), drawn(8, 30, seed=1).bfloat16()
    found = memories(embedding, Output(weight))
    assert found.agreement.dtype == torch.float32
    assert found.by_class.tolist() == literal(embedding.double(), weight.double().T)[0]


@given(st.data())
def test_what_the_strongest_memories_of_a_token_say(data: st.DataObject) -> None:
    classes, count, rows = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 12)), 4
    seed = data.draw(st.integers(0, 10_000))
    known = memories(drawn(classes, 3, seed=seed), Output(drawn(3, count, seed=seed + 1)))
    coefficients = drawn(rows, count, seed=seed + 2)
    target = torch.tensor(data.draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows)))
    used = strongest(coefficients)
    for row in range(rows):
        own = set(coefficients[row].argsort(descending=True)[:5].tolist())
        assert set(used[row].tolist()) == own
        asked = int(target[row])
        assert bool(agree_by_class(used, known, target)[row]) == bool(own & set(known.by_class[asked].tolist()))
        assert bool(agree_by_value(used, known, target)[row]) == any(asked in known.by_value[j].tolist() for j in own)
        assert bool(match_top1(used, known, target)[row]) == any(int(known.by_value[j, 0]) == asked for j in own)


def test_the_largest_signed_coefficients_count() -> None:
    """Not the largest in size: a large negative coefficient writes the opposite of its value."""
    known = Memories(torch.tensor([[0]]), torch.zeros(7, 1, dtype=torch.int64), torch.zeros(1))
    coefficients = torch.tensor([[-9.0, 1, 2, 3, 4, 5, 0]])
    assert not bool(agree_by_class(strongest(coefficients), known, torch.tensor([0])))


@pytest.mark.parametrize("scaled", [False, True])
def test_scores_and_cosines_of_pairs(scaled: bool) -> None:
    embedding, weight = drawn(5, 6), drawn(6, 9, seed=1)
    weight[:, 4] = 0
    scale = drawn(6, seed=2) if scaled else None
    output, values = Output(weight, scale=scale), (weight if scale is None else weight * scale[:, None]).T
    every = memory_scores(embedding, output, slice(None), torch.tensor([3]))
    of_class = memory_scores(embedding, output, torch.tensor([2]), slice(None))
    pairs = memory_scores(embedding, output, torch.tensor([1, 0]), torch.tensor([4, 8]))
    for found, rows in (
        (every, [(c, 3) for c in range(5)]),
        (of_class, [(2, j) for j in range(9)]),
        (pairs, [(1, 4), (0, 8)]),
    ):
        for place, (c, j) in enumerate(rows):
            dot = sum(float(a) * float(b) for a, b in zip(embedding[c], values[j], strict=True))
            length = float(embedding[c].norm() * values[j].norm())
            assert float(found[0][place]) == pytest.approx(dot, abs=1e-12)
            assert float(found[1][place]) == pytest.approx(dot / length if length else 0.0, abs=1e-12)
