"""Collections of garbage while the libraries of models are imported."""

from __future__ import annotations

import gc
import sys

import pytest

from classlens.cli.options import _import_models


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether collections were off at each freeze; nothing of the tests is frozen."""
    calls: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: calls.append(not gc.isenabled()))
    return calls


def test_libraries_that_are_there_are_left_alone(frozen: list[bool]) -> None:
    import torch  # noqa: F401

    _import_models()
    assert not frozen
    assert gc.isenabled()


@pytest.mark.parametrize("fails", [False, True])
def test_collections_are_on_again(fails: bool, frozen: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    import classlens.lens.load  # noqa: F401

    monkeypatch.delitem(sys.modules, "torch")
    if fails:
        monkeypatch.setitem(sys.modules, "classlens.lens.load", None)
        with pytest.raises(ImportError):
            _import_models()
    else:
        _import_models()
    assert frozen == [True]
    assert gc.isenabled()


def test_collections_that_a_program_turned_off_stay_off(frozen: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    gc.disable()
    try:
        _import_models()
        assert not frozen
        assert not gc.isenabled()
    finally:
        gc.enable()
