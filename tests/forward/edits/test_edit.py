"""Several edits at once: their order, contexts that nest, contexts of an edit's own, and errors on entering."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import classlens
from classlens import AblateHeads, ClasslensError, CutAttention, Edit, EditStep, NoCls, SelfOnly
from classlens.forward.edits.edit import editing
from classlens.forward.edits.registry import EDITS
from classlens.models.view import ModelView
from tests import zoo
from tests.forward.edits.by_hand import by_hand, close, edited, model, pixels, refused


def test_the_twin_is_the_model() -> None:
    vit, x = model(), pixels()
    with torch.no_grad():
        close(by_hand(vit, x), vit(x))


def test_edits_add_up_in_their_order() -> None:
    vit, x = model(), pixels()

    def both(_: int, a: Tensor) -> Tensor:
        a = a.clone()
        a[:, :, 1:, 0] = 0
        a[:, :, 0, 2] = 0
        return a

    expected = by_hand(vit, x, both, heads=lambda _, y: y * torch.tensor([1.0, 0, 1]).view(3, 1, 1))
    edits = (NoCls(), CutAttention("cls", [2]), AblateHeads([1]))
    close(edited(vit, x, *edits), expected)
    lens = classlens.load(vit)
    with lens.edit(edits[0]), lens.edit(edits[1]), lens.edit(edits[2]), torch.no_grad():
        close(vit(x), expected)


@dataclass(frozen=True, eq=False)
class Scale(Edit):
    """Scales, then shifts, what one MLP adds; keeps a diary of its context."""

    label = "scale"
    about = "an edit of one's own"

    factor: float
    diary: list[str] = field(default_factory=list)
    place: str = ""

    def steps(self, view: ModelView) -> Iterator[EditStep]:
        order = {"first": self.place == "first", "last": self.place == "last"}
        yield EditStep("mlp_out", 1, lambda x, _: self.factor * x + 1, **order)

    def contexts(self, view: ModelView) -> Iterator[AbstractContextManager[Any]]:
        yield self._noted()

    @contextmanager
    def _noted(self) -> Iterator[None]:
        self.diary.append("in")
        try:
            yield
        finally:
            self.diary.append("out")


@pytest.mark.parametrize(
    ("places", "slope", "constant"),
    [
        (("", ""), 6, 4),  # 3 (2x + 1) + 1
        (("last", ""), 6, 3),  # 2 (3x + 1) + 1
        (("", "first"), 6, 3),
        (("last", "first"), 6, 3),
        (("first", ""), 6, 4),
    ],
)
def test_first_and_last_steps(places: tuple[str, str], slope: int, constant: int) -> None:
    vit, x = model(), pixels()
    one, two = Scale(2, place=places[0]), Scale(3, place=places[1])
    expected = by_hand(vit, x, mlp=lambda number, y: slope * y + constant if number == 1 else y)
    close(edited(vit, x, one, two), expected)


def test_contexts_of_an_edit_last_as_long_as_the_edit() -> None:
    vit, x = model(), pixels()
    edit = Scale(2)
    lens = classlens.load(vit)
    with pytest.raises(KeyError), lens.edit(edit):
        assert edit.diary == ["in"]
        raise KeyError
    assert edit.diary == ["in", "out"]
    close(edited(vit, x, edit), by_hand(vit, x, mlp=lambda number, y: 2 * y + 1 if number == 1 else y))
    assert list(SelfOnly().contexts(lens.view)) == []


def test_a_point_that_blocks_do_not_show() -> None:
    @dataclass(frozen=True, eq=False)
    class Elsewhere(Edit):
        label = about = "nowhere"
        point: str

        def steps(self, view: ModelView) -> Iterator[EditStep]:
            yield EditStep("attention", 0, lambda x, _: x)
            yield EditStep(self.point, 0, lambda x, _: x)

    refused(Elsewhere("nowhere"), "do not show nowhere, so it cannot be edited there")
    refused(Elsewhere("values"), "only show values, so it cannot be edited there")


@pytest.mark.parametrize("wrong", ["no_cls", NoCls, None, lambda: NoCls()])
@pytest.mark.wrong_types
def test_what_is_no_edit(wrong: Any) -> None:
    vit = zoo.build("cls")
    before = zoo.snapshot(vit)
    with pytest.raises(ClasslensError, match="is not an edit: give an instance of CutAttention, NoCls, ") as caught:
        with editing(classlens.load(vit).view, [SelfOnly(), wrong]):
            pytest.fail("entered")
    assert all(name in str(caught.value) for name in EDITS)
    assert zoo.snapshot(vit) == before


def test_an_edit_has_steps() -> None:
    with pytest.raises(TypeError, match="steps"):
        Edit()  # type: ignore[abstract]
