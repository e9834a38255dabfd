"""The laws of a supported model, measured on a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from classlens.core.attention import Output
from classlens.core.steps import compute_dtype
from classlens.explain.attribution import attribute
from classlens.forward.active_edits import active_edits
from classlens.forward.agreement import COEFFICIENTS, SUBLAYERS
from classlens.forward.hooks import Receiver
from classlens.forward.recorder import record
from classlens.forward.run import NotPassed, run
from classlens.forward.streaming import stream
from classlens.lens.sublayer_check import SublayerCheck
from classlens.models.self_check import Checks, measure_laws
from classlens.models.view import ModelView

LawName = Literal[
    "residual stream", "class space", "attribution", "no trace", "attention rows", "fused attention", "memories"
]


@dataclass(frozen=True)
class Law:
    """A law with its measured error."""

    name: LawName
    error: float | None
    """None where the law does not apply."""
    tolerance: float
    """Largest error that rounding in the model's own precision explains."""
    note: str
    """Statement of the law, or the reason why it does not apply."""

    @property
    def holds(self) -> bool:
        return self.error is None or self.error <= self.tolerance


def check_laws(view: ModelView, pixels: Tensor | None = None) -> Checks:
    """Laws 1 to 3 and the class gradient on ``pixels`` or on one random image, from one pass with attention in steps.

    Under edits laws 1 and 2 alone: what an edit puts in the place of a sublayer's output is not the sum of its parts.
    """
    pixels = _random(view) if pixels is None else pixels
    sites: dict[str, list[Tensor]] = {name: [] for name in ("resid_pre", "attn_out", "mlp_out", "resid_post")}
    tokens = view.tokens((int(pixels.shape[2]), int(pixels.shape[3])))
    sublayers = None if active_edits(view.module).edits else SublayerCheck(view, tokens.count)
    compared: Mapping[str, Receiver] = {} if sublayers is None else sublayers.receivers

    def receive(name: str, block: int, x: Tensor) -> None:
        sites[name].append(x)
        if name in compared:
            compared[name](block, x)

    receivers: dict[str, Receiver] = {**compared, **{name: partial(receive, name) for name in sites}}
    logits = run(view, pixels, receivers, unfused=True, exposing_coefficients=True)
    checks = measure_laws(view, logits, tokens, **sites)
    return checks if sublayers is None else sublayers.results(checks, sites["resid_post"][-1])


def verify(view: ModelView, pixels: Tensor | None = None) -> list[Law]:
    """Measure laws 1 to 4, attention weights, and the sum of memories, on pixels or on one random image.

    Examples:
        >>> import classlens
        >>> [law.name for law in verify(classlens.load("builtin:cifar10").view) if not law.holds]
        []
    """
    pixels = _random(view) if pixels is None else pixels
    before = _state(view.module)
    logits, again = (run(view, pixels) for _ in range(2))
    repeated = float((again - logits).abs().max())  # some devices do not compute the same twice
    checks = check_laws(view, pixels)
    statement = f"the pooled tokens project to the model's own logits, up to {checks.largest_logit:.2g}"
    laws = [
        Law("residual stream", checks.law1, checks.law1_tolerance, "block outputs are the sum of their parts"),
        Law("class space", checks.law2, checks.law2_tolerance, statement),
        *_rows(view, pixels),
        _memories(view, pixels),
        _attribution(view, pixels),
    ]
    return [*laws, _no_trace(view, pixels, before, logits, repeated)]


def _attribution(view: ModelView, pixels: Tensor) -> Law:
    """Law 3 for the predicted class of each image and for the last class."""
    if any(readout.space.pool is not None for readout in view.readouts):
        return Law("attribution", None, 0.0, "not defined: the head pools by attention, which is not linear")
    recording = record(view, pixels)
    logits = recording.logits.to(compute_dtype(recording.logits.dtype)).cpu()
    worst, tolerance = 0.0, 0.0
    for target in (logits.argmax(dim=1), torch.full((len(logits),), view.num_classes - 1)):
        parts = attribute(recording, target.to(view.device), check=False)
        terms = [parts.embed[:, None], parts.attention.flatten(1), parts.mlp, parts.bias[:, None]]
        terms += [parts.replaced.flatten(1), parts.edit]
        total = torch.stack([term.sum(dim=1) for term in terms]).sum(dim=0)
        error = total - logits.gather(1, target[:, None])[:, 0]
        worst = max(worst, float(error.abs().max()))
        # Every term is rounded on its own, in the precision of its states.
        size = float(torch.stack([term.abs().sum(dim=1) for term in terms]).sum(dim=0).max())
        tolerance = max(tolerance, 8 * torch.finfo(view.dtype).eps * max(size, 1.0))
    return Law("attribution", worst, tolerance, "the contributions of all parts sum to the logit")


def _rows(view: ModelView, pixels: Tensor) -> list[Law]:
    """Weights of attention in steps: their sums, and those that fused attention takes from queries and keys."""
    recording = record(view, pixels)
    queries, everything = torch.arange(recording.tokens.count), slice(None)
    fused = recording.has_rows(queries) and not active_edits(view.module).edits
    sums, difference, blocks = 0.0, 0.0, 0

    def receive(block: int, weights: Tensor) -> None:
        nonlocal sums, difference, blocks
        blocks += 1
        weights = weights.to(compute_dtype(weights.dtype))
        sums = max(sums, float((weights.sum(dim=-1) - 1).abs().max()))
        if fused:
            error = (recording.rows(block, everything, queries) - weights).abs().max()
            difference = max(difference, float(error))

    eps = torch.finfo(view.dtype).eps
    try:
        run(view, pixels, {"attention": receive}, unfused=True)
    except NotPassed:
        note = f"attention weights passed in {blocks} of {len(view.blocks)} blocks"
        return [Law("attention rows", float("inf"), 0.0, note), Law("fused attention", None, 0.0, "not checked")]
    rows = Law("attention rows", sums, 16 * eps, "attention weights of every query sum to one")
    if not fused:
        note = "not checked: the description of the model has no queries and keys"
        return [rows, Law("fused attention", None, 0.0, note)]
    # Deep states of a fused pass and of one in steps differ by rounding.
    tolerance = 2.0**10 * eps if eps < 1e-4 else 16 * eps
    return [rows, Law("fused attention", difference, tolerance, "queries and keys give the attention weights")]


def _memories(view: ModelView, pixels: Tensor) -> Law:
    """Coefficients times value vectors, against the output of each sublayer."""
    names = [f"{sublayer}_{end}" for sublayer in SUBLAYERS for end in ("coefficients", "out")]
    if any(name not in block.points for block in view.blocks for name in names):
        return Law("memories", None, 0.0, "not checked: the description of the model has no memory coefficients")
    held: dict[str, Tensor] = {}
    worst, size, sublayers = 0.0, 1.0, 0

    def receive(name: str, block: int, x: Tensor) -> None:
        nonlocal worst, size, sublayers
        if name in COEFFICIENTS:
            held[COEFFICIENTS[name]] = x
            return
        sublayer = name.removesuffix("_out")
        coefficients = held.pop(sublayer, None)
        if coefficients is None:
            return
        output: Output = getattr(view.blocks[block], sublayer)
        dtype = compute_dtype(x.dtype)
        error = output.apply(coefficients.to(dtype)) - x.to(dtype)
        worst, size = max(worst, float(error.abs().max())), max(size, float(x.abs().max()))
        sublayers += 1

    try:
        stream(view, pixels, names, receive)
    except NotPassed:
        note = f"coefficients passed in {sublayers} of {2 * len(view.blocks)} sublayers"
        return Law("memories", float("inf"), 0.0, note)
    inner = max(block.mlp.weight.shape[1] for block in view.blocks)
    # A sum over hidden units, and the rounding of the states themselves.
    tolerance = 8 * size * torch.finfo(view.dtype).eps * max(1.0, inner**0.5)
    return Law("memories", worst, tolerance, "coefficients times value vectors sum to each sublayer's output")


class _Interrupted(Exception):
    """Raised by the check itself, half-way through a measurement."""


def _no_trace(view: ModelView, pixels: Tensor, before: dict[str, Any], logits: Tensor, repeated: float) -> Law:
    """Law 4, after the measurements of all other laws and one that raises."""

    def interrupt(block: int, _: Tensor) -> None:
        raise _Interrupted

    with suppress(_Interrupted):
        run(view, pixels, {"attn_out": interrupt}, unfused=True)
    changed = [name for name, value in _state(view.module).items() if before.get(name) != value]
    if changed:
        return Law("no trace", float("inf"), 0.0, f"{changed[0]!r} has changed")
    error = float((run(view, pixels) - logits).abs().max())
    return Law("no trace", error, repeated, "same outputs afterwards, no hook left, every flag unchanged")


def _state(module: nn.Module) -> dict[str, Any]:
    """Hooks, flags and parameters of every module, which a measurement could change."""
    return dict(_states(module))


def _states(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            if isinstance(value, bool | int | float | str | None):
                yield f"{name}.{key}", value
            elif "hooks" in key and hasattr(value, "__len__"):
                yield f"{name}.{key}", len(value)
    for name, parameter in module.named_parameters():
        yield name, (id(parameter), parameter._version, parameter.requires_grad)


def _random(view: ModelView) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, view.channels, *view.input_size, generator=generator)
