"""Confidence intervals in closed form, for thousands of shares and means at once.

``core.stats`` resamples images, which takes too long for every part of a model and every class. Both intervals treat
images as independent draws.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from classlens.core.stats import ratio

Ends = tuple[Float[ndarray, "*shape"], Float[ndarray, "*shape"]]
"""Lower and upper ends of intervals; NaN where none is defined."""


def share_interval(hits: Int[ndarray, "*shape"], trials: Int[ndarray, "*shape"], confidence: float = 0.95) -> Ends:
    """Wilson's score interval of a share ``hits / trials`` (Wilson, 1927); NaN without a trial.

    With ``p = hits / n`` and the normal quantile ``z``, it is
    ``(p + z²/2n ± z √(p (1 - p) / n + z²/4n²)) / (1 + z²/n)``. It stays within 0 and 1, and has a width where all
    trials agree.

    Examples:
        >>> low, high = share_interval(np.array([10]), np.array([10]))
        >>> low.round(3), high
        (array([0.722]), array([1.]))
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    count = np.where(trials > 0, trials, np.nan)
    share = hits / count
    center = share + z**2 / (2 * count)
    half = z * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    scale = 1 + z**2 / count
    return np.clip((center - half) / scale, 0, 1), np.clip((center + half) / scale, 0, 1)


def mean_interval(
    mean: Float[ndarray, "*shape"],
    squares: Float[ndarray, "*shape"],
    count: Int[ndarray, "*shape"],
    confidence: float = 0.95,
) -> Ends:
    """Student's t interval of a mean; NaN for fewer than two values.

    It is ``mean ± t s / √n`` with the quantile ``t`` for ``n - 1`` degrees of freedom and the standard deviation
    ``s = √(squares / (n - 1))``, where ``squares`` is the sum of squared deviations from the mean.

    Examples:
        >>> low, high = mean_interval(np.array([2.0]), np.array([2.0]), np.array([3]))
        >>> low.round(2), high.round(2)
        (array([-0.48]), array([4.48]))
    """
    from scipy.stats import t

    counts, index = np.unique(count, return_inverse=True)
    quantiles = np.full(len(counts), np.nan)
    defined = counts > 1
    quantiles[defined] = t.ppf((1 + confidence) / 2, counts[defined] - 1)
    half = quantiles[index].reshape(count.shape) * np.sqrt(ratio(squares, count * (count - 1)))
    return mean - half, mean + half
