"""Ridge probes compared with scikit-learn, and sums that do not depend on the split of the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge, RidgeCV
from torch import Tensor

from classlens.tasks.probes.ridge import LeaveOneOut, RidgeSums
from tests.refusals import refused

# images, width, change of the features
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
PROBES, CLASSES = 3, 5


def data(case: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    images, width, change = CASES[case]
    generator = torch.Generator().manual_seed(len(case))
    features = change(torch.randn(images, PROBES, width, generator=generator, dtype=torch.float64)).to(dtype)
    label = torch.randint(CLASSES, (images,), generator=generator)
    label[:CLASSES] = torch.arange(CLASSES)
    return features + 0.5 * torch.nn.functional.one_hot(label, width)[:, None].to(dtype), label


def signs(label: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.where(label[:, None].numpy() == np.arange(CLASSES), 1.0, -1.0)


def sums_of(features: Tensor, label: Tensor) -> RidgeSums:
    sums = RidgeSums(PROBES, features.shape[2], CLASSES)
    sums.update(features, label)
    return sums


@pytest.mark.parametrize("alpha", [1.0, 0.01, 300.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_against_scikit_learn(case: str, dtype: torch.dtype, alpha: float) -> None:
    features, label = data(case, dtype)
    probes = sums_of(features, label).solve(alpha, dtype=torch.float64)
    scores = probes.project(features.double())
    for probe in range(PROBES):
        x = features[:, probe].double().numpy()
        ridge = Ridge(alpha, solver="cholesky").fit(x, signs(label))
        np.testing.assert_allclose(probes.weight[probe].T.numpy(), ridge.coef_, rtol=0, atol=1e-5)
        np.testing.assert_allclose(scores[:, probe].numpy(), ridge.predict(x), rtol=0, atol=1e-5)
        assert np.abs(ridge.coef_).max() > 1e-3


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=40, max_size=40))
def test_sums_do_not_depend_on_the_split(owner: list[int]) -> None:
    features, label = data("well-conditioned")
    features, label = features[:40], label[:40]
    parts = [RidgeSums(PROBES, 12, CLASSES) for _ in range(4)]
    for image, part in enumerate(owner):
        parts[part].update(features[image : image + 1], label[image : image + 1])
    merged = parts[0].merge(parts[1]).merge(parts[2].merge(parts[3])).solve(dtype=torch.float64)
    whole = sums_of(features, label).solve(dtype=torch.float64)
    torch.testing.assert_close(merged.weight, whole.weight, rtol=0, atol=1e-10)
    torch.testing.assert_close(merged.bias, whole.bias, rtol=0, atol=1e-10)


@pytest.mark.parametrize("case", ["well-conditioned", "more features than images", "a large mean"])
def test_leave_one_out_against_scikit_learn(case: str) -> None:
    features, label = data(case)
    alphas = [0.1, 1.0, 10.0]
    sums = sums_of(features, label)
    choice = sums.leave_one_out(alphas)
    for part in (slice(0, 7), slice(7, None)):
        choice.update(features[part], label[part])
    errors = choice.errors
    for probe in range(PROBES):
        ridge = RidgeCV(alphas, store_cv_results=True).fit(features[:, probe].numpy(), signs(label))
        expected = ridge.cv_results_.reshape(-1, CLASSES, 3).sum(axis=(0, 1))
        np.testing.assert_allclose(errors[:, probe].numpy(), expected, rtol=1e-6)


def test_leave_one_out_is_training_without_the_image() -> None:
    features, label = data("more features than images")
    choice = sums_of(features, label).leave_one_out([2.0])
    choice.update(features, label)
    (errors,) = choice.errors
    total = torch.zeros(PROBES, dtype=torch.float64)
    for image in range(len(label)):
        others = torch.arange(len(label)) != image
        probes = sums_of(features[others], label[others]).solve(2.0, dtype=torch.float64)
        residuals = torch.as_tensor(signs(label[image : image + 1])) - probes.project(features[image : image + 1])[0]
        total += residuals.square().sum(dim=1)
    torch.testing.assert_close(errors, total, rtol=1e-6, atol=0)


def test_all_rows_of_an_image_are_left_out_together() -> None:
    """As for pooled probes: the rows of an image are consecutive."""
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
        choice.update(features[part].flatten(0, 1)[:, None], label[part].repeat_interleave(rows), rows_per_image=rows)
    for number, alpha in enumerate(alphas):
        total = 0.0
        for image in range(images):
            others = torch.arange(images) != image
            ridge = Ridge(alpha, solver="cholesky").fit(
                features[others].flatten(0, 1).numpy(), signs(label[others].repeat_interleave(rows))
            )
            residuals = signs(label[image : image + 1]) - ridge.predict(features[image].numpy())
            total += float((residuals**2).sum())
        # Thirty-six sums of squares through an eigendecomposition in float64.
        assert float(choice.errors[number, 0]) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("case", ["well-conditioned", "more features than images", "a large mean"])
def test_probes_have_the_alpha_of_the_least_error(case: str) -> None:
    features, label = data(case)
    # Noise without the classes calls for a large alpha.
    features[:, 1] = torch.randn_like(features[:, 1])
    alphas = [1e-3, 1.0, 1e3, 1e6]
    sums = sums_of(features, label)
    choice = sums.leave_one_out(alphas)
    choice.update(features, label)
    probes, alpha = choice.solve(dtype=torch.float64)
    for probe in range(PROBES):
        errors = choice.errors[:, probe].tolist()
        assert alpha[probe] == alphas[errors.index(min(errors))]
        x = features[:, probe].numpy()
        ridge = Ridge(float(alpha[probe]), solver="cholesky").fit(x, signs(label))
        np.testing.assert_allclose(probes.weight[probe].T.numpy(), ridge.coef_, rtol=0, atol=1e-7)
        np.testing.assert_allclose(probes.bias[probe].numpy(), ridge.intercept_, rtol=0, atol=1e-5)
    assert len(set(alpha.tolist())) > 1 or case != "well-conditioned"
    assert choice.solve()[0].weight.dtype == torch.float32


def test_ram_of_leave_one_out() -> None:
    sums = RidgeSums(3, 9, 5)
    sums.update(torch.randn(20, 3, 9), torch.arange(20) % 5)
    choice = sums.leave_one_out([1.0])
    held = sum(tensor.nbytes for tensor in (*choice._vectors, *choice._along))
    assert LeaveOneOut.bytes_of(3, 9, 5) == held


def test_probes_one_by_one_and_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    features, label = data("well-conditioned")
    whole = sums_of(features, label).solve()
    monkeypatch.setattr("classlens.tasks.probes.ridge._SCRATCH", 1)
    torch.testing.assert_close(sums_of(features, label).solve().weight, whole.weight)
    assert whole.weight.dtype == torch.float32


def test_ram_of_sums() -> None:
    sums = RidgeSums(4, 9, 7)
    assert RidgeSums.bytes_of(4, 9, 7) == sum(strip.nbytes for strip in sums._strips) + sums._sums.nbytes
    # ViT-B/32 with three sites of twelve blocks and fifty tokens: nearly twice the default of 8 GB.
    assert 15e9 < RidgeSums.bytes_of(36 * 50, 768, 1000) < 15.7e9


def test_mistakes() -> None:
    refused(lambda: RidgeSums(1, 2, 3).solve(), "no images")
    features, label = data("well-conditioned")
    refused(lambda: sums_of(features, label).solve(0.0), "alpha is 0.0")
    refused(lambda: RidgeSums(1, 2, 3).merge(RidgeSums(1, 2, 4)), "(1, 2, 4)", "(1, 2, 3)")


def test_constant_features_give_chance() -> None:
    """As for ``[CLS]`` before the first block: with equal scores every class would be on top of every image."""
    label = torch.arange(60) % CLASSES
    features = torch.full((60, PROBES, 7), 3.3, dtype=torch.float64)
    choice = sums_of(features, label).leave_one_out([1.0, 10.0])
    choice.update(features, label)
    for probes in (sums_of(features, label).solve(), choice.solve()[0]):
        assert not probes.weight.any()
        rank = probes.facts(features.float(), label).rank.view(60, PROBES)
        assert (rank == 0).float().mean() == 1 / CLASSES
    few = label.clone()
    few[:30] = 2
    assert (sums_of(features, few).solve().project(features.float()).argmax(dim=-1) == 2).all()


def test_an_alpha_below_rounding() -> None:
    sums = RidgeSums(1, 64, 5)
    sums.update(10 * torch.randn(20, 1, 64), torch.arange(20) % 5)
    refused(lambda: sums.solve(1e-15), "alpha 1e-15 is too small", "give more")


@pytest.mark.parametrize("stage", ["sums", "errors"])
def test_a_state_continues_to_the_same_bits(stage: str, tmp_path: Path) -> None:
    """Saved in a file in the middle of the rows and restored by others."""
    features, label = data("well-conditioned")
    first, second = slice(0, 90), slice(90, None)
    whole = RidgeSums(PROBES, 12, CLASSES)
    for part in (first, second):
        whole.update(features[part], label[part])

    def through_a_file(state: Any) -> Any:
        torch.save(state, tmp_path / "state")
        return torch.load(tmp_path / "state", weights_only=True)

    if stage == "sums":
        begun, resumed = RidgeSums(PROBES, 12, CLASSES), RidgeSums(PROBES, 12, CLASSES)
        begun.update(features[first], label[first])
        resumed.restore(through_a_file(begun.state()))
        resumed.update(features[second], label[second])
        expected, probes = whole.solve(), resumed.solve()
    else:
        choices = [whole.leave_one_out([0.1, 10.0]) for _ in range(2)]
        for part in (first, second):
            choices[0].update(features[part], label[part])
        choices[1].update(features[first], label[first])
        choice = LeaveOneOut.from_state(through_a_file(choices[1].state()))
        choice.update(features[second], label[second])
        assert torch.equal(choice.errors, choices[0].errors)
        (expected, _), (probes, _) = choices[0].solve(), choice.solve()
    assert torch.equal(probes.weight, expected.weight)
    assert torch.equal(probes.bias, expected.bias)
