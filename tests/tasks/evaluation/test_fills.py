"""Pixels that take the place of removed ones, compared with torchvision and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from torchvision import transforms

from classlens.models.transforms import Preprocessing
from classlens.tasks.evaluation.fills import black, blur
from tests import zoo
from tests.tasks.evaluation.batches import batch_of, lens_of

NAME = "cls_not_square"


@pytest.mark.parametrize("normalized", [True, False])
def test_black_is_black_in_the_picture(normalized: bool) -> None:
    """The picture of a painted image is black, and its pixels are those of a black picture."""
    lens, pixels = lens_of(), zoo.pixels(NAME, 2)
    if normalized:
        mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
        normalize = transforms.Normalize(mean, std)
        lens.preprocessing = Preprocessing(normalize, mean, std)
        expected = normalize(torch.zeros(3, 24, 16, dtype=pixels.dtype))
    else:
        lens.preprocessing = Preprocessing(None)
        expected = torch.zeros(3, 24, 16, dtype=pixels.dtype)
    painted = black(batch_of(lens, pixels, zoo.targets(2)))
    torch.testing.assert_close(painted, expected.expand(2, -1, -1, -1), rtol=0, atol=1e-12)


def test_blur_is_a_gaussian_filter() -> None:
    """By scipy, away from the border, which is padded in another way."""
    pixels = zoo.pixels(NAME, 2)
    painted = blur(batch_of(lens_of(), pixels, zoo.targets(2)))
    # 24 × 16 pixels: a deviation of 24 / 32, cut off at two pixels.
    expected = scipy.ndimage.gaussian_filter(pixels.numpy(), 0.75, axes=(2, 3), radius=2, mode="mirror")
    np.testing.assert_allclose(painted.numpy(), expected, rtol=0, atol=1e-12)
