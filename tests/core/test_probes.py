"""Scores of linear probes against loops over tokens and classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from classlens.core.probes import LinearProbes
from tests.refusals import refused

IMAGES, TOKENS, WIDTH, CLASSES = 4, 6, 5, 7
SPANS = {"all": slice(None), "the last": slice(2, 6), "one": slice(3, 4)}


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).to(dtype)


def made(span: slice, *, shared: bool, dtype: torch.dtype = torch.float32) -> LinearProbes:
    places = 1 if shared else len(range(*span.indices(TOKENS)))
    return LinearProbes(drawn(places, WIDTH, CLASSES, dtype=dtype), drawn(places, CLASSES, dtype=dtype), span)


def looped(probes: LinearProbes, tokens: Tensor) -> Tensor:
    """One class of one token at a time, in float64."""
    read = range(*probes.tokens.indices(TOKENS))
    found = torch.empty(len(tokens), len(read), CLASSES, dtype=torch.float64)
    for image in range(len(tokens)):
        for number, token in enumerate(read):
            place = 0 if len(probes.weight) == 1 else number
            for one in range(CLASSES):
                total = float(probes.bias[place, one])
                for channel in range(WIDTH):
                    total += float(tokens[image, token, channel]) * float(probes.weight[place, channel, one])
                found[image, number, one] = total
    return found


@pytest.mark.parametrize("scratch", [2**22, 1, 2 * IMAGES * CLASSES])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("span", SPANS)
def test_scores_and_facts(span: str, shared: bool, scratch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole, a token at a time, and two at a time."""
    monkeypatch.setattr("classlens.core.probes._SCRATCH", scratch)
    probes, tokens = made(SPANS[span], shared=shared), drawn(IMAGES, TOKENS, WIDTH)
    expected = looped(probes, tokens)
    torch.testing.assert_close(probes.project(tokens), expected, rtol=0, atol=1e-12)
    target = torch.tensor([0, 6, 3, 3])
    found = probes.facts(tokens, target)
    rank, logit, top1 = (value.view(IMAGES, -1) for value in found)
    for image in range(IMAGES):
        for number, scores in enumerate(expected[image].tolist()):
            own = scores[int(target[image])]
            assert int(rank[image, number]) == sum(one > own for one in scores)
            assert float(logit[image, number]) == pytest.approx(own, abs=1e-12)
            assert int(top1[image, number]) == scores.index(max(scores))


def test_tied_scores() -> None:
    """A tie is no larger score; the first of the largest is on top."""
    weight = torch.zeros(1, WIDTH, CLASSES)
    probes = LinearProbes(weight, torch.tensor([[0.0, 2.0, 2.0, 1.0, 1.0, 1.0, 2.0]]))
    found = probes.facts(drawn(3, 2, WIDTH), torch.tensor([6, 3, 0]))
    assert found.rank.tolist() == [0, 0, 3, 3, 6, 6]
    assert found.top1.tolist() == [1] * 6


def test_precision_is_that_of_the_tokens_and_float32_at_least() -> None:
    probes = made(slice(None), shared=False)
    for dtype, expected in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
        tokens = drawn(2, TOKENS, WIDTH, dtype=dtype)
        found = probes.project(tokens)
        assert found.dtype == expected
        # Six float32 numbers of order 1 are summed.
        torch.testing.assert_close(found.double(), looped(probes, tokens), rtol=0, atol=1e-5)


def test_scores_that_are_not_finite() -> None:
    tokens = drawn(2, TOKENS, WIDTH)
    tokens[1, 2, 0] = float("nan")
    refused(lambda: made(slice(None), shared=True).facts(tokens, torch.tensor([0, 1])), "not finite")


def test_no_tokens_have_no_scores() -> None:
    probes = LinearProbes(drawn(1, WIDTH, CLASSES), drawn(1, CLASSES), slice(0, 0))
    assert probes.project(drawn(2, TOKENS, WIDTH)).shape == (2, 0, CLASSES)
