"""Is a model read right? Every law of a supported model, measured on the model itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from classlens.core.attention import Output
from classlens.core.maps import compute_dtype
from classlens.explain.attribution import attribute
from classlens.forward.hooks import Receiver, evaluating, watching
from classlens.forward.recording import record
from classlens.forward.streaming import SUBLAYERS
from classlens.models.self_check import Checks, measure_laws
from classlens.models.view import ModelView

LawName = Literal["residual stream", "class space", "attribution", "no trace", "attention rows", "memories"]


@dataclass(frozen=True)
class Law:
    """One law with the error that was measured.

    ``error`` is None where the law does not apply, ``note`` says why; it holds up to ``tolerance``, what rounding in
    the model's own precision may cost.
    """

    name: LawName
    error: float | None
    tolerance: float
    note: str

    @property
    def holds(self) -> bool:
        return self.error is None or self.error <= self.tolerance


def check_laws(view: ModelView, pixels: Tensor | None = None) -> Checks:
    """Laws 1 and 2 on ``pixels`` or on one random image, from one forward pass."""
    pixels = _random(view) if pixels is None else pixels
    sites: dict[str, list[Tensor]] = {name: [] for name in ("resid_pre", "attn_out", "mlp_out", "resid_post")}
    receivers = {name: (lambda _, x, kept=kept: kept.append(x)) for name, kept in sites.items()}
    with evaluating(view.module), watching(view, receivers):
        logits = view.run(pixels.to(view.device, view.dtype))
    return measure_laws(view, logits, view.tokens((int(pixels.shape[2]), int(pixels.shape[3]))), **sites)


def verify(view: ModelView, pixels: Tensor | None = None) -> list[Law]:
    """Laws 1 to 4, that attention rows sum to one, and that memories add up to what their sublayers add.

    ``[law.name for law in verify(lens.view) if not law.holds]`` is empty for a model that is read right. ``pixels``
    are ``[image, channel, height, width]``; one random image when left out. Source: design, section 1.
    """
    pixels = _random(view) if pixels is None else pixels
    before = _state(view.module)
    with evaluating(view.module):
        logits, again = (view.run(pixels.to(view.device, view.dtype)) for _ in range(2))
    repeated = float((again - logits).abs().max())  # some devices do not repeat themselves exactly
    checks = check_laws(view, pixels)
    size = f"what the model pools projects on its own logits, up to {checks.largest_logit:.2g}"
    laws = [
        Law("residual stream", checks.law1, checks.law1_tolerance, "block outputs are the sum of their parts"),
        Law("class space", checks.law2, checks.law2_tolerance, size),
        _rows(view, pixels),
        _memories(view, pixels),
        _attribution(view, pixels),
    ]
    return [*laws, _no_trace(view, pixels, before, logits, repeated)]


def _attribution(view: ModelView, pixels: Tensor) -> Law:
    """Law 3 for the predicted class of each image and for the last class."""
    if any(readout.space.pool is not None for readout in view.readouts):
        return Law("attribution", None, 0.0, "not defined: the head pools by attention, which is not linear")
    recording = record(view, pixels)
    own = recording.logits.to(compute_dtype(recording.logits.dtype)).cpu()
    worst, tolerance = 0.0, 0.0
    for target in (own.argmax(dim=1), torch.full((len(own),), view.num_classes - 1)):
        parts = attribute(recording, target.to(view.device))
        every = [parts.embed[:, None], parts.attention.flatten(1), parts.mlp, parts.bias[:, None]]
        total = torch.stack([part.sum(dim=1) for part in every]).sum(dim=0)
        error = total - own.gather(1, target[:, None])[:, 0]
        worst = max(worst, float(error.abs().max()))
        # Every part is rounded on its own, in the precision of the states that it is made of.
        size = float(torch.stack([part.abs().sum(dim=1) for part in every]).sum(dim=0).max())
        tolerance = max(tolerance, 8 * torch.finfo(view.dtype).eps * max(size, 1.0))
    return Law("attribution", worst, tolerance, "what all parts add sums to the logit")


def _rows(view: ModelView, pixels: Tensor) -> Law:
    worst, seen = 0.0, 0

    def receive(_: int, weights: Tensor) -> None:
        nonlocal worst, seen
        seen += 1
        worst = max(worst, float((weights.to(compute_dtype(weights.dtype)).sum(dim=-1) - 1).abs().max()))

    with evaluating(view.module), view.unfused(), watching(view, {"attention": receive}):
        view.run(pixels.to(view.device, view.dtype))
    note = "attention weights of every query sum to one"
    if seen != len(view.blocks):
        return Law("attention rows", float("inf"), 0.0, f"attention weights passed {seen} of {len(view.blocks)} blocks")
    return Law("attention rows", worst, 16 * torch.finfo(view.dtype).eps, note)


def _memories(view: ModelView, pixels: Tensor) -> Law:
    """Coefficients times value vectors, through what follows, against what each sublayer adds."""
    names = [f"{sublayer}_{end}" for sublayer in SUBLAYERS for end in ("coefficients", "out")]
    if any(name not in block.points for block in view.blocks for name in names):
        return Law("memories", None, 0.0, "not checked: the model is described without its memory coefficients")
    found: dict[str, Tensor] = {}
    worst, size, seen = 0.0, 1.0, 0

    def keep(sublayer: str, _: int, coefficients: Tensor) -> None:
        found[sublayer] = coefficients

    def added(sublayer: str, block: int, out: Tensor) -> None:
        nonlocal worst, size, seen
        coefficients = found.pop(sublayer, None)
        if coefficients is None:
            return
        output: Output = getattr(view.blocks[block], sublayer)
        dtype = compute_dtype(out.dtype)
        error = output.apply(coefficients.to(dtype)) - out.to(dtype)
        worst, size = max(worst, float(error.abs().max())), max(size, float(out.abs().max()))
        seen += 1

    receivers: dict[str, Receiver] = {}
    for sublayer in SUBLAYERS:
        # Coefficients pass before what is made of them.
        receivers[f"{sublayer}_coefficients"] = partial(keep, sublayer)
        receivers[f"{sublayer}_out"] = partial(added, sublayer)
    with evaluating(view.module), view.exposing_coefficients(), watching(view, receivers):
        view.run(pixels.to(view.device, view.dtype))
    if seen != 2 * len(view.blocks):
        return Law("memories", float("inf"), 0.0, f"coefficients passed {seen} of {2 * len(view.blocks)} sublayers")
    inner = max(block.mlp.weight.shape[1] for block in view.blocks)
    # A sum over hidden units, and the rounding of the states themselves.
    tolerance = 8 * size * torch.finfo(view.dtype).eps * max(1.0, inner**0.5)
    return Law("memories", worst, tolerance, "coefficients times value vectors are what each sublayer adds")


class _Interrupted(Exception):
    """Raised by the check itself, half-way through a measurement."""


def _no_trace(view: ModelView, pixels: Tensor, before: dict[str, Any], logits: Tensor, repeated: float) -> Law:
    """Law 4, after all the measurements above and one that ends in an error."""

    def interrupt(block: int, _: Tensor) -> None:
        raise _Interrupted

    try:
        with evaluating(view.module), view.unfused(), watching(view, {"attn_out": interrupt}):
            view.run(pixels.to(view.device, view.dtype))
    except _Interrupted:
        pass
    changed = [name for name, value in _state(view.module).items() if before.get(name) != value]
    if changed:
        return Law("no trace", float("inf"), 0.0, f"{changed[0]!r} is not what it was")
    with evaluating(view.module):
        again = view.run(pixels.to(view.device, view.dtype))
    error = float((again - logits).abs().max())
    return Law("no trace", error, repeated, "same outputs afterwards, no hook left, every flag as it was")


def _state(module: nn.Module) -> dict[str, Any]:
    """Hooks, flags and parameters: all that a measurement could leave behind."""
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
