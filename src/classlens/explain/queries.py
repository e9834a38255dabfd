"""The query tokens whose attention is explained: the tokens that the head pools, or one chosen token."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.arguments import Takes, taken, whole_number
from classlens.core.space import ClassSpace
from classlens.errors import ClasslensError, suggestion
from classlens.forward.recording import Recording
from classlens.models.view import ModelView, Tokens

Integer = int | np.integer
Query = Annotated[
    str | Integer | tuple[Integer, Integer] | list[Integer] | None,
    Takes("a prefix token's name, a position, (row, column) or None"),
]
"""A prefix token's name, a position in the sequence, ``(row, column)`` of an image token, or None for the tokens that
the head pools."""


class Queries(NamedTuple):
    """Query tokens with their class space and their weight in the model's logits."""

    space: ClassSpace
    positions: slice
    weight: float

    def at(self, view: ModelView, block: int) -> ClassSpace:
        """The class space for the attention output of a block."""
        return view.space_at(self.space, "attn_out", block)


def queries_of(recording: Recording, query: Query) -> list[Queries]:
    """The queries of an explanation, grouped by class space; raises ClasslensError for a token that does not exist."""
    view, tokens = recording.view, recording.tokens
    if query is None:
        return [Queries(readout.space, readout.pooled, readout.weight) for readout in view.readouts]
    position = token_position(tokens, query, view)
    for space, group in view.spaces(tokens.count):
        if isinstance(group, slice) or position in group.tolist():
            return [Queries(space, slice(position, position + 1), 1.0)]
    raise AssertionError("every token has a class space")


def token_position(tokens: Tokens, query: Query, view: ModelView) -> int:
    """Position of a token in the sequence; raises ClasslensError for a token that does not exist."""
    query, (rows, columns) = taken("query", query, Query), tokens.grid
    if isinstance(query, str):
        if query not in tokens.prefix:
            names = ", ".join(repr(name) for name in tokens.prefix) or "none"
            raise ClasslensError(
                f"query {query!r} is no prefix token of model {view.name!r}{suggestion(query, tokens.prefix)}; "
                f"its prefix tokens are {names}, and image tokens are given as (row, column)"
            )
        return tokens.prefix.index(query)
    if isinstance(query, tuple | list):
        if len(query) != 2 or not (0 <= query[0] < rows and 0 <= query[1] < columns):
            raise ClasslensError(
                f"query {query} is no image token: give (row, column) within the grid of {rows} by {columns}"
            )
        return int(len(tokens.prefix) + query[0] * columns + query[1])
    return whole_number("query", query, 0, tokens.count - 1, hint=", a prefix token's name, or (row, column)")


def check_query(recording: Recording, query: Query) -> None:
    """Raises ClasslensError where ``query_rows`` has no meaning, and for a token that does not exist."""
    view = recording.view
    if query is None and any(readout.space.pool is not None for readout in view.readouts):
        raise ClasslensError(
            f"the head of model {view.name!r} pools tokens by an attention of its own, which a mean over attention "
            "rows does not describe: give query=(row, column), or use class_gradient"
        )
    queries_of(recording, query)


def query_positions(recording: Recording, query: Query) -> Int[Tensor, " query"]:
    """Positions of the queries of an explanation, in ascending order."""
    every = torch.arange(recording.tokens.count)
    positions: Tensor = torch.cat([every[queries.positions] for queries in queries_of(recording, query)]).unique()
    return positions


def query_rows(
    recording: Recording,
    images: slice,
    query: Query,
    matrix: Float[Tensor, "image query token"],
    positions: Int[Tensor, " query"] | None = None,
) -> Float[Tensor, "image image_token"]:
    """The rows of the queries at image tokens: their mean, weighted where a model has several readouts.

    ``positions`` are those of the rows of ``matrix``, all when left out.
    """
    rows = []
    every = torch.arange(recording.tokens.count)
    for queries in queries_of(recording, query):
        index = every[queries.positions]
        index = index if positions is None else torch.searchsorted(positions, index)
        chosen = matrix[:, index.to(matrix.device), recording.tokens.image]
        weights = recording.query_weights(images, queries.positions)
        chosen = chosen if weights is None else chosen * weights[..., None].to(chosen)
        rows.append(queries.weight * chosen.mean(dim=1))
    return sum(rows[1:], rows[0])
