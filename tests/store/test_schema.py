"""Shapes, chunks and fill values of a group."""

from __future__ import annotations

import numpy as np

from tests.store.small import schema

DIMS = ("image", "site", "block", "token")


def test_shapes_follow_the_dims() -> None:
    assert schema(7).shape(DIMS) == (7, 2, 3, 5)
    assert schema(7).shape(("token", "image")) == (5, 7)


def test_a_chunk_holds_one_site_and_block() -> None:
    assert schema().chunk(DIMS, 64) == (64, 1, 1, 5)


def test_blank_arrays_hold_fill_values_of_their_type() -> None:
    blank = schema().blank(2)
    assert blank["rank"].shape == (2, 2, 3, 5)
    assert blank["rank"].dtype == np.int16
    assert (blank["rank"] == -1).all()
    assert blank["logit"].dtype == np.float32
    assert np.isnan(blank["logit"]).all()
