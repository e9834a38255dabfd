"""The record of an edited pass beside the original one: outputs, trajectory, map and ranks of one photo."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from classlens.core.arrays import Array
from classlens.errors import ClasslensError
from classlens.explain.registry import METHODS, default_method
from classlens.forward.means import Means
from classlens.lens.lens import Lens
from classlens.lens.trace import Trace
from classlens.render.edit_record.build import build_edits, kept_tokens_of
from classlens.render.edit_record.plan import EditPlan

Record = dict[str, Any]
_TOP = 5


def edit_record(
    lens: Lens,
    original: Trace,
    plan: EditPlan,
    *,
    source: Float[Tensor, "image channel height width"] | None = None,
    means: Means | None = None,
) -> Record:
    """The pass with the edits of a plan beside the pass without, as plain numbers and names.

    Args:
        lens: the model.
        original: the trace of one photo, without edits.
        plan: the edits, and the classes of interest.
        source: preprocessed pixels ``[image, channel, height, width]`` of the photo that patches come from.
        means: means of a data set, for edits that put them in.

    Returns:
        ``classes`` (the likeliest of both passes, and those of interest: ``logit`` and ``probability`` of each pass
        and their ``change``), ``predictions``, ``trajectory`` (by depth), ``map`` (by row and column), ``ranks`` (of
        each token after the last block), ``names`` of classes, and ``dropped`` tokens, which have None in maps and
        ranks of the edited pass. Numbers are those of ``Lens.edit``; none is rounded.

    Raises:
        ClasslensError: an unknown class, edits that do not fit the model, or logits that are not finite.
    """
    view, tokens = lens.view, original.recording.tokens
    if len(original) != 1:
        raise ClasslensError(f"a trace of {len(original)} images was given: give that of one photo")
    target = int(original.recording.logits[0].argmax()) if plan.target is None else lens.classes.index(plan.target)
    against = None if plan.against is None else lens.classes.index(plan.against)
    if against == target:
        raise ClasslensError(f"target and against are both {lens.classes.names[target]!r}: give another class")
    edits = build_edits(plan.edits, view, tokens, source=source, means=means)
    kept = kept_tokens_of(plan.edits, tokens.count)
    everything = torch.ones_like(kept)
    passes = {"original": _pass(original, target, against, everything)}
    with lens.edit(*edits):
        edited = lens.trace(original.pixels)
        passes["edited"] = _pass(edited, target, against, kept)
    named = {"original": original, "edited": edited}
    return {
        "target": _named(lens, target),
        "against": None if against is None else _named(lens, against),
        "edits": [edit.text for edit in plan.edits],
        "dropped": (~kept).nonzero()[:, 0].tolist(),
        "classes": _classes(lens, named, [target] if against is None else [target, against]),
        "predictions": {name: _named(lens, int(trace.recording.logits[0].argmax())) for name, trace in named.items()},
        "trajectory": {name: of_pass["trajectory"] for name, of_pass in passes.items()} if view.exclusive else None,
        "map": _map(lens, passes, kept, tokens.grid),
        "ranks": {name: of_pass["ranks"] for name, of_pass in passes.items()} if view.exclusive else None,
        "names": _names(lens, passes) if view.exclusive else {},
    }


def _pass(trace: Trace, target: int, against: int | None, kept: Bool[Tensor, " token"]) -> Record:
    """The numbers of one pass; called within the edits of the trace."""
    view = trace.recording.view
    method = default_method(view)
    # Losses of other heads than those of exclusive classes are no differences of logits.
    options: dict[str, Any] = {"loss": "logit"} if method == "class_gradient" and not view.exclusive else {}
    if against is not None and "against" in METHODS[method].options:
        options["against"] = against
    values, reason = None, None
    try:
        values = trace.map(target, method=method, **options).values[0].astype(np.float64)
    except ClasslensError as error:
        reason = str(error)
    result: Record = {"map": values, "reason": reason}
    if view.exclusive:
        facts = trace.trajectory(target, k=_TOP)
        probability = np.exp(facts["top_logit"].values[0] - facts["logsumexp"].values[0][:, None])
        rank = trace.rank("resid_post", target).values[0, -1]
        result["trajectory"] = {
            "top": facts["top"].values[0].tolist(),
            "probability": probability.tolist(),
            "target": np.exp(facts["log_probability"].values[0]).tolist(),
            "margin": facts["margin"].values[0].tolist(),
        }
        result["ranks"] = [int(value) if keep else None for value, keep in zip(rank, kept, strict=True)]
    return result


def _classes(lens: Lens, passes: dict[str, Trace], of_interest: list[int]) -> list[Record]:
    """The classes of interest first, then the likeliest of both passes by their largest logit."""
    logits = {name: trace.recording.logits[0].cpu().to(trace.recording.dtype) for name, trace in passes.items()}
    probability = {name: lens.view.probabilities(values) for name, values in logits.items()}
    top = min(_TOP, len(lens.classes))
    likeliest = {index for values in logits.values() for index in values.topk(top).indices.tolist()}
    others = sorted(likeliest - set(of_interest), key=lambda i: (-max(float(v[i]) for v in logits.values()), i))
    rows = []
    for index in [*of_interest, *others]:
        row: Record = _named(lens, index)
        for name, values in logits.items():
            shares = probability[name]
            row[name] = {
                "logit": float(values[index]),
                "probability": None if shares is None else float(shares[index]),
            }
        row["change"] = {key: _less(row["edited"][key], row["original"][key]) for key in ("logit", "probability")}
        rows.append(row)
    return rows


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _map(lens: Lens, passes: dict[str, Record], kept: Bool[Tensor, " token"], grid: tuple[int, int]) -> Record:
    """Both maps and their difference; null where the edits drop the token."""
    method = default_method(lens.view)
    on_grid = kept[len(kept) - grid[0] * grid[1] :].reshape(grid).numpy()
    original, edited = passes["original"]["map"], passes["edited"]["map"]
    difference = None if original is None or edited is None else edited - original
    return {
        "method": method,
        "label": METHODS[method].label,
        "reason": passes["edited"]["reason"] or passes["original"]["reason"],
        "original": None if original is None else original.tolist(),
        "edited": _without(edited, on_grid),
        "difference": _without(difference, on_grid),
    }


def _without(values: Array | None, kept: Array) -> list[list[float | None]] | None:
    if values is None:
        return None
    return [
        [float(value) if keep else None for value, keep in zip(row, row_kept, strict=True)]
        for row, row_kept in zip(values, kept, strict=True)
    ]


def _names(lens: Lens, passes: dict[str, Record]) -> dict[str, str]:
    """Names of the classes of both trajectories, by index."""
    tops = (index for of_pass in passes.values() for top in of_pass["trajectory"]["top"] for index in top)
    return {str(index): lens.classes.names[index] for index in sorted(set(tops))}


def _named(lens: Lens, index: int) -> Record:
    return {"index": index, "name": lens.classes.names[index]}
