"""Whose attention is explained: the tokens that the head pools, or one that is asked for."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from classlens.core.arguments import is_whole_number, whole_number
from classlens.core.space import ClassSpace
from classlens.errors import ClasslensError, suggestion
from classlens.forward.recording import Recording
from classlens.models.view import ModelView, Tokens

Query = str | int | tuple[int, int] | list[int] | None
"""A prefix token's name, a place in the sequence, row and column of an image token, or None for what the head pools."""


class Queries(NamedTuple):
    """Some queries with the class space through which they are read, and their weight in the logits."""

    space: ClassSpace
    places: slice
    weight: float

    def at(self, view: ModelView, block: int) -> ClassSpace:
        """The class space as it reads what the attention of a block adds."""
        return view.space_at(self.space, "attn_out", block)


def queries_of(recording: Recording, query: Query) -> list[Queries]:
    """The queries of an explanation; raises ClasslensError for a token that is not there."""
    view, tokens = recording.view, recording.tokens
    if query is None:
        return [Queries(readout.space, readout.pooled, readout.weight) for readout in view.readouts]
    place = place_of(tokens, query, view)
    for space, group in view.spaces(tokens.count):
        if isinstance(group, slice) or place in group.tolist():
            return [Queries(space, slice(place, place + 1), 1.0)]
    raise AssertionError("every token has a class space")


def place_of(tokens: Tokens, query: str | int | tuple[int, int] | list[int], view: ModelView) -> int:
    """Where a token stands; raises ClasslensError for one that is not there."""
    rows, columns = tokens.grid
    if isinstance(query, str):
        if query not in tokens.prefix:
            names = ", ".join(repr(name) for name in tokens.prefix) or "none"
            raise ClasslensError(
                f"query {query!r} is no prefix token of model {view.name!r}{suggestion(query, tokens.prefix)}; "
                f"its names are {names}, and image tokens are given as (row, column)"
            )
        return tokens.prefix.index(query)
    if isinstance(query, tuple | list):
        if (
            len(query) != 2
            or not all(map(is_whole_number, query))
            or not (0 <= query[0] < rows and 0 <= query[1] < columns)
        ):
            raise ClasslensError(
                f"query {query} is no image token: give (row, column) within the grid of {rows} by {columns}"
            )
        return int(len(tokens.prefix) + query[0] * columns + query[1])
    return whole_number("query", query, 0, tokens.count - 1, hint=", a prefix token's name, or (row, column)")


def check_rows(recording: Recording, query: Query) -> None:
    """Raises ClasslensError where no mean over rows is what the head reads, or for a token that is not there."""
    view = recording.view
    if query is None and any(readout.space.pool is not None for readout in view.readouts):
        raise ClasslensError(
            f"the head of model {view.name!r} weighs its tokens by an attention of its own, so that a plain mean over "
            "their rows is not what it reads: give attention, rollout and chefer query=(row, column), or use "
            "class_gradient"
        )
    queries_of(recording, query)


def rows_of(
    recording: Recording, query: Query, matrix: Float[Tensor, "*batch query token"]
) -> Float[Tensor, "*batch token"]:
    """What the queries say of each image token: the mean over them, weighted where a model has several readouts.

    ``check_rows`` tells where that can be said.
    """
    grid = recording.tokens.image
    parts = [one.weight * matrix[..., one.places, grid].mean(dim=-2) for one in queries_of(recording, query)]
    return sum(parts[1:], parts[0])
