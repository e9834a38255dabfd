"""Edits of the forward pass: their base class, and the context that applies them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from classlens.core.arguments import AtLeast0, checked, shown
from classlens.errors import ClasslensError
from classlens.forward.active_edits import activated, note_replacement
from classlens.forward.edits.registry import EDITS
from classlens.forward.hooks import Change, replacing
from classlens.forward.isolation import exclusive, plain_torch, uncompiled
from classlens.models.view import ModelView, Point

EXPOSED_POINTS = frozenset({"attn_coefficients", "attn_joined"})
"""Points that pass only within ``ModelView.exposing_coefficients``."""


@checked
@dataclass(frozen=True, eq=False)
class EditStep:
    """One change of the tensor that passes at one point of one block.

    Args:
        point: name of a block point, such as ``"attention"`` (``[image, head, query, token]``) or ``"mlp_out"``
            (``[image, token, width]``); see ``BlockView``.
        block: index of the block, from 0.
        change: function of the passing tensor, and of a slice that says which of all heads or channels it holds. It
            returns the tensor that replaces it.
        first: apply before every other change of the point, also before those of contexts around this one.
        last: apply after the other changes of the same ``Lens.edit``.
        replaces: where the change replaces values, the new ones do not depend on the old: what came before them has no
            gradient there. Without it, gradients in closed form are refused at the points of attention's output.

    Examples:
        >>> import classlens
        >>> step = classlens.EditStep("mlp_out", 5, lambda x, _: 0.5 * x)
    """

    point: str
    block: AtLeast0
    change: Change
    first: bool = False
    last: bool = False
    replaces: bool = False


class Edit(ABC):
    """A change of the forward pass, for ``Lens.edit``: a frozen dataclass that lists its steps.

    ``label`` is its name in prose, ``about`` says in one line what it does.

    Examples:
        >>> import classlens, torch
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True, eq=False)
        ... class ScaleSublayer(classlens.Edit):
        ...     label, about = "scale sublayer", "the output of an MLP is multiplied by a factor"
        ...     block: int
        ...     factor: float
        ...     def steps(self, view):
        ...         yield classlens.EditStep("mlp_out", self.block, lambda x, _: self.factor * x)
        >>> lens, pixels = classlens.load("builtin:cifar10"), torch.zeros(1, 3, 32, 32)
        >>> with lens.edit(ScaleSublayer(block=5, factor=0.5)):
        ...     edited = lens.facts(pixels, "resid_post", "cat")
    """

    label: ClassVar[str]
    about: ClassVar[str]

    @abstractmethod
    def steps(self, view: ModelView) -> Iterable[EditStep]:
        """The changes of the edit; raises ClasslensError for a part that the model does not have."""

    def contexts(self, view: ModelView) -> Iterable[AbstractContextManager[Any]]:
        """Further contexts of the edit, entered once all steps are in place; none by default."""
        return ()


@contextmanager
def editing(view: ModelView, edits: Sequence[Edit]) -> Iterator[None]:
    """Apply edits to every pass in the body; afterwards the model is as before (law 4). Other threads wait."""
    for edit in edits:
        if not isinstance(edit, Edit):
            raise ClasslensError(f"{shown(edit)} is not an edit: give an instance of {', '.join(EDITS)}")
    with ExitStack() as stack:
        stack.enter_context(exclusive(view.module))
        stack.enter_context(uncompiled(view.module))
        with plain_torch():
            steps = [step for edit in edits for step in edit.steps(view)]
        edited = {step.point for step in steps}
        if "attention" in edited:
            stack.enter_context(view.unfused())
        if not edited.isdisjoint(EXPOSED_POINTS):
            stack.enter_context(view.exposing_coefficients())
        for step in sorted(steps, key=lambda step: step.last):
            point = editable_point(view, step.point, step.block)
            stack.enter_context(replacing(point, partial(_change, view, step), first=step.first))
        for edit in edits:
            for context in edit.contexts(view):
                stack.enter_context(context)
        computed = frozenset(step.point for step in steps if not step.replaces)
        stack.enter_context(activated(view.module, tuple(edits), computed, frozenset(edited)))
        yield


def editable_point(view: ModelView, name: str, block: int) -> Point:
    """A point of a block; raises ClasslensError where another tensor cannot take the place of the one that passes."""
    points = view.blocks[block].points
    point = points.get(name)
    if point is None or not point.editable:
        editable = ", ".join(name for name, point in points.items() if point.editable)
        raise ClasslensError(
            f"the blocks of model {view.name!r} {'do not show' if point is None else 'only show'} {name}, so it cannot "
            f"be edited there: edit one of {editable}, or describe the model with a Point that has write="
        )
    return point


def _change(view: ModelView, step: EditStep, x: Tensor, part: slice) -> Tensor:
    """The change of one step; raises ClasslensError where the residual stream would not be the sum of its parts."""
    new = step.change(x, part)
    is_sum = step.point == "resid_post" or (step.point == "resid_pre" and step.block > 0)
    if is_sum and new is not x and not torch.equal(new, x):
        raise ClasslensError(
            f"an edit changes {step.point} of block {step.block} of model {view.name!r}, which is the sum of what its "
            "sublayers add: edit the mlp_out that is added before that place, as Patch('resid_post', …) does"
        )
    note_replacement(step.point, step.block, x, new, part)
    return new
