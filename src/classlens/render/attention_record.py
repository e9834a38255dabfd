"""Attention of every head as the report shows it: small enough for a page, with entropy and distance of every query."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from classlens.forward.recorder import pooled_queries
from classlens.lens.trace import Trace
from classlens.models.view import Tokens

_LEVELS = 15
"""Levels of a weight on the page: the root of its share of the largest weight of its query."""
_WEIGHTS = 6_000_000
"""Largest number of weights of an image; about 3 MB of a page."""


def attention_records(trace: Trace, compression: int = 6) -> list[dict[str, Any] | None]:
    """One record for each image: weights of every head and query, or where these are too many, of the pooled queries.

    None where the pooled ones are too many as well. ``compression``: 1, the fastest, to 9, the smallest.
    """
    tokens, view = trace.recording.tokens, trace.recording.view
    rows = {"all": tokens.count, "pooled": len(pooled_queries(view, tokens.count))}
    most = _WEIGHTS // (sum(block.heads for block in view.blocks) * tokens.count)
    queries = next((name for name, count in rows.items() if count <= most), None)
    if queries is None:
        return [None] * len(trace)
    weights = trace.attention(queries=queries)
    return [_record(image, weights["query"].values, tokens, compression) for image in weights.values.astype(np.float64)]


def _record(
    values: Float[ndarray, "block head query token"], queries: ndarray, tokens: Tokens, compression: int
) -> dict[str, Any]:
    on_image = values[..., tokens.image]
    return {
        "queries": queries.tolist(),
        "shape": list(values.shape),
        "levels": _LEVELS,
        "largest": values.max(axis=-1).tolist(),
        "entropy": entropy(values).tolist(),
        "distance": distance(on_image, queries, tokens.grid, len(tokens.prefix)).tolist(),
        "deflate": base64.b64encode(zlib.compress(_levels(values).tobytes(), compression)).decode("ascii"),
    }


def entropy(weights: Float[ndarray, "*heads query token"]) -> Float[ndarray, "*heads query"]:
    """Entropy of the attention of each query, in nats.

    Examples:
        >>> entropy(np.array([[0.5, 0.5, 0.0]])).round(3).tolist()
        [0.693]
    """
    return np.asarray(-(weights * np.log(weights, out=np.zeros_like(weights), where=weights > 0)).sum(axis=-1))


def distance(
    weights: Float[ndarray, "*heads query token"], queries: ndarray, grid: tuple[int, int], prefix: int
) -> Float[ndarray, "*heads query"]:
    """Mean distance from each query to the image tokens that it attends to, in tokens; -1 for prefix queries.

    Weights of image tokens alone, normalized. Source: Dosovitskiy et al., *An Image is Worth 16x16 Words*, ICLR 2021.

    Examples:
        >>> distance(np.array([[0.2, 0.0, 0.2]]), np.array([1]), (1, 3), prefix=1).tolist()
        [1.0]
    """
    places = np.stack(np.unravel_index(np.arange(grid[0] * grid[1]), grid), axis=1).astype(np.float64)
    on_image = np.maximum(queries - prefix, 0)
    apart = np.linalg.norm(places[on_image][:, None] - places[None], axis=-1)
    total = weights.sum(axis=-1)
    mean = np.divide((weights * apart).sum(axis=-1), total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(np.where(queries < prefix, -1.0, mean))


def _levels(weights: Float[ndarray, "*heads query token"]) -> ndarray:
    largest = weights.max(axis=-1, keepdims=True)
    share = np.divide(weights, largest, out=np.zeros_like(weights), where=largest > 0)
    return np.asarray(np.round(_LEVELS * np.sqrt(share)).astype(np.uint8))
