"""Edits of a model from a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from classlens.errors import ClasslensError
from classlens.forward.edits.edit import Edit
from classlens.forward.edits.registry import EDITS
from classlens.forward.means import Means
from classlens.models.view import ModelView, Tokens
from classlens.render.edit_record.fields import Value, edit_options
from classlens.render.edit_record.plan import PlannedEdit


def build_edits(
    edits: Sequence[PlannedEdit],
    view: ModelView,
    tokens: Tokens,
    *,
    source: Float[Tensor, "image channel height width"] | None = None,
    means: Means | None = None,
) -> list[Edit]:
    """The edits for ``Lens.edit``, in their order.

    ``tokens`` are those of the photo that runs, ``source`` the pixels that patches come from. Raises ClasslensError
    for tokens that the model does not have, for means or a source that are missing, and where the head would read no
    token. Blocks, heads and units are checked on entering ``Lens.edit``.
    """
    given = {"source": source, "means": means}
    built = [_edit(edit, tokens.count, given) for edit in edits]
    _require_pooled(kept_tokens_of(edits, tokens.count), view, tokens)
    return built


def kept_tokens_of(edits: Sequence[PlannedEdit], count: int) -> Bool[Tensor, " token"]:
    """The tokens that no edit drops."""
    kept = torch.ones(count, dtype=torch.bool)
    for edit in edits:
        for option in edit_options(edit.name).values():
            if option.kind == "mask" and option.name in edit.options:
                kept &= _mask(edit.options[option.name], count)
    return kept


def _edit(edit: PlannedEdit, count: int, given: dict[str, Any]) -> Edit:
    values: dict[str, Any] = {}
    for name, option in edit_options(edit.name).items():
        if option.kind == "source":
            values[name] = _given(
                given, "source", f"edit {edit.name} needs the photo that it comes from: give a source"
            )
            continue
        if name not in edit.options:
            continue
        value = edit.options[name]
        if option.kind == "mask":
            value = _mask(value, count)  # type: ignore[assignment]
        elif option.kind == "replacement" and value == "means":
            value = _given(
                given, "means", f"edit {edit.name} puts in means, but none were given: give a file of `classlens means`"
            )
        values[name] = list(value) if isinstance(value, tuple) else value
    kind: Any = EDITS[edit.name]
    built: Edit = kind(**values)
    return built


def _given(given: dict[str, Any], name: str, otherwise: str) -> Any:
    if given[name] is None:
        raise ClasslensError(otherwise)
    return given[name]


def _mask(kept: Value, count: int) -> Bool[Tensor, " token"]:
    assert isinstance(kept, tuple)
    if kept[-1] >= count:
        raise ClasslensError(f"token {kept[-1]} does not exist: the model has tokens 0 to {count - 1}")
    mask = torch.zeros(count, dtype=torch.bool)
    mask[list(kept)] = True
    return mask


def _require_pooled(kept: Bool[Tensor, " token"], view: ModelView, tokens: Tokens) -> None:
    for readout in view.readouts:
        if not bool(kept[readout.pooled].any()):
            names = [tokens.kinds[token] for token in range(tokens.count)[readout.pooled]]
            words = f"[{names[0].upper()}]" if len(names) == 1 and names[0] != "image" else "image token"
            raise ClasslensError(
                f"the edits drop every token that the head reads: keep {words if len(names) == 1 else 'some of them'}"
            )
