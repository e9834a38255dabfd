"""Ridge probes against scikit-learn's, and sums that any split of the images agrees on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge, RidgeCV
from torch import Tensor

from classlens.tasks.probes.ridge import LeaveOneOut, RidgeSums
from tests.refusals import refused

# images, width, what is done to the features
CASES = {
    "well-conditioned": (200, 12, lambda x: x),
    "more features than images": (15, 40, lambda x: x),
    "features that nearly depend on each other": (
        120,
        10,
        lambda x: x @ torch.diag(10.0 ** -torch.arange(10.0)).double(),
    ),
    "features that do depend on each other": (60, 8, lambda x: torch.cat([x[..., :4], x[..., :4]], dim=-1)),
    "a large mean": (100, 6, lambda x: x + 1000),
}
PLACES, CLASSES = 3, 5


def made(case: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    images, width, change = CASES[case]
    generator = torch.Generator().manual_seed(len(case))
    features = change(torch.randn(images, PLACES, width, generator=generator, dtype=torch.float64)).to(dtype)
    label = torch.randint(CLASSES, (images,), generator=generator)
    label[:CLASSES] = torch.arange(CLASSES)
    return features + 0.5 * torch.nn.functional.one_hot(label, width)[:, None].to(dtype), label


def signs(label: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.where(label[:, None].numpy() == np.arange(CLASSES), 1.0, -1.0)


def summed(features: Tensor, label: Tensor) -> RidgeSums:
    sums = RidgeSums(PLACES, features.shape[2], CLASSES)
    sums.update(features, label)
    return sums


@pytest.mark.parametrize("alpha", [1.0, 0.01, 300.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_against_scikit_learn(case: str, dtype: torch.dtype, alpha: float) -> None:
    features, label = made(case, dtype)
    probes = summed(features, label).solve(alpha, dtype=torch.float64)
    found = probes.project(features.double())
    for place in range(PLACES):
        x = features[:, place].double().numpy()
        ridge = Ridge(alpha, solver="cholesky").fit(x, signs(label))
        np.testing.assert_allclose(probes.weight[place].T.numpy(), ridge.coef_, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found[:, place].numpy(), ridge.predict(x), rtol=0, atol=1e-5)
        assert np.abs(ridge.coef_).max() > 1e-3


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=40, max_size=40))
def test_any_split_agrees(owner: list[int]) -> None:
    features, label = made("well-conditioned")
    features, label = features[:40], label[:40]
    parts = [RidgeSums(PLACES, 12, CLASSES) for _ in range(4)]
    for image, part in enumerate(owner):
        parts[part].update(features[image : image + 1], label[image : image + 1])
    merged = parts[0].merge(parts[1]).merge(parts[2].merge(parts[3])).solve(dtype=torch.float64)
    whole = summed(features, label).solve(dtype=torch.float64)
    torch.testing.assert_close(merged.weight, whole.weight, rtol=0, atol=1e-10)
    torch.testing.assert_close(merged.bias, whole.bias, rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", ["well-conditioned", "more features than images", "a large mean"])
def test_leaving_one_out_against_scikit_learn(case: str) -> None:
    features, label = made(case)
    alphas = [0.1, 1.0, 10.0]
    sums = summed(features, label)
    choice = sums.leave_one_out(alphas)
    for part in (slice(0, 7), slice(7, None)):
        choice.update(features[part], label[part])
    found = choice.errors
    for place in range(PLACES):
        ridge = RidgeCV(alphas, store_cv_results=True).fit(features[:, place].numpy(), signs(label))
        expected = ridge.cv_results_.reshape(-1, CLASSES, 3).sum(axis=(0, 1))
        np.testing.assert_allclose(found[:, place].numpy(), expected, rtol=1e-6)


def test_leaving_one_out_is_training_without_it() -> None:
    features, label = made("more features than images")
    choice = summed(features, label).leave_one_out([2.0])
    choice.update(features, label)
    (found,) = choice.errors
    total = torch.zeros(PLACES, dtype=torch.float64)
    for image in range(len(label)):
        rest = torch.arange(len(label)) != image
        probes = summed(features[rest], label[rest]).solve(2.0, dtype=torch.float64)
        missing = torch.as_tensor(signs(label[image : image + 1])) - probes.project(features[image : image + 1])[0]
        total += missing.square().sum(dim=1)
    torch.testing.assert_close(found, total, rtol=1e-6, atol=0)


def test_leaving_out_an_image_of_several_rows_is_training_without_it() -> None:
    """As pooled probes have them: the rows of an image follow one another, and go together."""
    images, rows, width = 12, 3, 8
    label = torch.arange(images) % CLASSES
    features = (
        torch.randn(images, rows, width, dtype=torch.float64) + torch.nn.functional.one_hot(label, width)[:, None]
    )
    sums = RidgeSums(1, width, CLASSES)
    sums.update(features.flatten(0, 1)[:, None], label.repeat_interleave(rows))
    alphas = [0.3, 5.0]
    choice = sums.leave_one_out(alphas)
    for part in (slice(0, 5), slice(5, None)):
        some = features[part].flatten(0, 1)[:, None]
        choice.update(some, label[part].repeat_interleave(rows), rows_an_image=rows)
    for number, alpha in enumerate(alphas):
        total = 0.0
        for image in range(images):
            rest = torch.arange(images) != image
            ridge = Ridge(alpha, solver="cholesky").fit(
                features[rest].flatten(0, 1).numpy(), signs(label[rest].repeat_interleave(rows))
            )
            missing = signs(label[image : image + 1]) - ridge.predict(features[image].numpy())
            total += float((missing**2).sum())
        # Thirty-six sums of squares through an eigendecomposition in float64.
        assert float(choice.errors[number, 0]) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("case", ["well-conditioned", "more features than images", "a large mean"])
def test_the_alpha_of_the_least_error_is_solved_for(case: str) -> None:
    features, label = made(case)
    # At one place the classes show, at another there is noise alone, which wants a large alpha.
    features[:, 1] = torch.randn_like(features[:, 1])
    alphas = [1e-3, 1.0, 1e3, 1e6]
    sums = summed(features, label)
    choice = sums.leave_one_out(alphas)
    choice.update(features, label)
    probes, alpha = choice.solve(dtype=torch.float64)
    for place in range(PLACES):
        errors = choice.errors[:, place].tolist()
        assert alpha[place] == alphas[errors.index(min(errors))]
        x = features[:, place].numpy()
        ridge = Ridge(float(alpha[place]), solver="cholesky").fit(x, signs(label))
        np.testing.assert_allclose(probes.weight[place].T.numpy(), ridge.coef_, rtol=0, atol=1e-7)
        np.testing.assert_allclose(probes.bias[place].numpy(), ridge.intercept_, rtol=0, atol=1e-5)
    assert len(set(alpha.tolist())) > 1 or case != "well-conditioned"
    assert choice.solve()[0].weight.dtype == torch.float32


def test_memory_of_leaving_one_out_is_what_it_says() -> None:
    sums = RidgeSums(3, 9, 5)
    sums.update(torch.randn(20, 3, 9), torch.arange(20) % 5)
    choice = sums.leave_one_out([1.0])
    held = sum(one.nbytes for one in (*choice._vectors, *choice._along))
    assert LeaveOneOut.bytes_of(3, 9, 5) == held


def test_places_one_by_one_and_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    features, label = made("well-conditioned")
    whole = summed(features, label).solve()
    monkeypatch.setattr("classlens.tasks.probes.ridge._SCRATCH", 1)
    torch.testing.assert_close(summed(features, label).solve().weight, whole.weight)
    assert whole.weight.dtype == torch.float32


def test_memory_is_what_it_says() -> None:
    sums = RidgeSums(4, 9, 7)
    assert RidgeSums.bytes_of(4, 9, 7) == sum(one.nbytes for one in sums._strips) + sums._sums.nbytes
    # ViT-B/32 of the paper: three sites of twelve blocks, fifty tokens, about 15 GB (design, section 6), two times 8.
    assert 15e9 < RidgeSums.bytes_of(36 * 50, 768, 1000) < 15.7e9


def test_what_cannot_be_solved() -> None:
    refused(lambda: RidgeSums(1, 2, 3).solve(), "no images")
    features, label = made("well-conditioned")
    refused(lambda: summed(features, label).solve(0.0), "alpha is 0.0")
    refused(lambda: RidgeSums(1, 2, 3).merge(RidgeSums(1, 2, 4)), "(1, 2, 4)", "(1, 2, 3)")


def test_features_that_tell_nothing_give_chance() -> None:
    """As those of ``[CLS]`` before the first block: were all classes alike, each would be on top of every image."""
    label = torch.arange(60) % CLASSES
    features = torch.full((60, PLACES, 7), 3.3, dtype=torch.float64)
    choice = summed(features, label).leave_one_out([1.0, 10.0])
    choice.update(features, label)
    for probes in (summed(features, label).solve(), choice.solve()[0]):
        assert not probes.weight.any()
        rank = probes.facts(features.float(), label).rank.view(60, PLACES)
        assert (rank == 0).float().mean() == 1 / CLASSES
    few = label.clone()
    few[:30] = 2
    assert (summed(features, few).solve().project(features.float()).argmax(dim=-1) == 2).all()


def test_an_alpha_that_is_lost_in_rounding() -> None:
    sums = RidgeSums(1, 64, 5)
    sums.update(10 * torch.randn(20, 1, 64), torch.arange(20) % 5)
    refused(lambda: sums.solve(1e-15), "alpha 1e-15 is too small", "give more")
