"""Corrupted images, against NumPy and SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from classlens import Corruption
from tests.refusals import refused

PIXELS = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_blur() -> None:
    for amount, sigma in ((None, 2.0), (1 / 16, 4.0)):
        expected = PIXELS.numpy()
        for axis in (2, 3):
            expected = gaussian_filter1d(expected, sigma, axis=axis, mode="mirror", radius=round(3 * sigma))
        np.testing.assert_allclose(Corruption("blur", amount)(PIXELS), expected, rtol=0, atol=1e-7)
    assert torch.equal(Corruption("blur", 0)(PIXELS), PIXELS)
    assert bool(torch.isfinite(Corruption("blur", 1e308)(PIXELS)).all())


def test_noise() -> None:
    ones = Corruption("noise")(PIXELS) - PIXELS
    torch.testing.assert_close(ones[0], ones[1])
    assert abs(float(ones[0].std()) - 1) < 0.05
    torch.testing.assert_close(Corruption("noise", 3.0)(PIXELS) - PIXELS, 3 * ones)
    alone = Corruption("noise")(PIXELS[1:].float())
    torch.testing.assert_close(alone[0], (PIXELS + ones)[1].float())
    assert float((Corruption("noise", seed=1)(PIXELS) - PIXELS - ones).abs().max()) > 1


def test_constants() -> None:
    expected = np.broadcast_to(PIXELS.numpy().mean(axis=(2, 3), keepdims=True), PIXELS.shape)
    np.testing.assert_allclose(Corruption("mean_color")(PIXELS), expected, rtol=0, atol=1e-12)
    assert torch.equal(Corruption("zero")(PIXELS), torch.zeros_like(PIXELS))


@pytest.mark.wrong_types
def test_refusals() -> None:
    make: Any = Corruption
    refused(lambda: make("blurr"), "corruption 'blurr' is not known; did you mean 'blur'?")
    refused(lambda: make("zero", 0.5), "corruption 'zero' has no amount to choose")
    refused(lambda: make("blur", -1), "amount -1 cannot be used: give a number of at least 0")
    refused(lambda: make("blur")(torch.zeros(3, 8, 8)), "pixels", "cannot be used")
