"""Linear imputation: removed pixels become the weighted mean of their neighbors."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

# By offset in rows and columns; opposite offsets have equal weights.
_WEIGHTS = {(0, 1): 1 / 6, (1, 0): 1 / 6, (1, 1): 1 / 12, (1, -1): 1 / 12}


def imputed(
    pixels: Float[ndarray, "channel height width"], removed: Bool[ndarray, "height width"]
) -> Float[ndarray, "channel height width"]:
    """Pixels of which the removed ones solve ``x_i = Σ_j w_ij x_j / Σ_j w_ij`` over their neighbors ``j``.

    The weight is 1/6 for the four direct and 1/12 for the four diagonal neighbors inside the image. At least one pixel
    must stay. Source: Rong et al., *A Consistent and Efficient Evaluation Strategy for Attribution Methods*, ICML 2022,
    section 4.2.
    """
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import splu

    neighbors = _neighbors(*removed.shape)
    unknown = np.flatnonzero(removed)
    values = pixels.reshape(len(pixels), -1).T.astype(np.float64)
    values[unknown] = 0
    of_unknown = neighbors[unknown]
    system = diags_array(of_unknown.sum(axis=1)) - of_unknown[:, unknown]
    # Symmetric and positive definite, so that no pivots are needed.
    factors = splu(system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    values[unknown] = factors.solve(of_unknown @ values)
    result: Float[ndarray, "channel height width"] = values.T.reshape(pixels.shape)
    return result


@lru_cache(maxsize=4)
def _neighbors(height: int, width: int) -> Any:
    """The weight of each pixel in the mean of each other: a sparse, symmetric matrix ``[pixel, pixel]``."""
    from scipy.sparse import coo_array

    index = np.arange(height * width).reshape(height, width)
    pairs = []
    for (down, right), weight in _WEIGHTS.items():
        first = index[: height - down, max(0, -right) : width - max(0, right)].ravel()
        second = first + down * width + right
        pairs += [(first, second, weight), (second, first, weight)]
    rows, columns = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    weights = np.concatenate([np.full(len(first), weight) for first, _, weight in pairs])
    return coo_array((weights, (rows, columns)), shape=(index.size, index.size)).tocsr()
