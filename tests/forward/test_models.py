"""The models that stand for the others."""

from __future__ import annotations

import pytest

from tests.forward.models import EVERY, IMPLEMENTATIONS, OTHERS, POOLINGS, implementation, view_of


@pytest.mark.slow
def test_every_implementation_and_pooling_has_its_representative() -> None:
    chosen = [view_of(name) for name in IMPLEMENTATIONS]
    known = {implementation(view) for view in chosen}
    assert len(known) == len(IMPLEMENTATIONS), "each stands for other models than the others"
    pooled = {view.pooling for view in [*chosen, *map(view_of, POOLINGS)]}
    for name in OTHERS:
        view = view_of(name)
        assert implementation(view) in known, name
        assert view.pooling in pooled, name
    assert set(POOLINGS) <= set(EVERY)
