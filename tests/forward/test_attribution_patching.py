"""Estimates of what parts do, against slopes of the model itself, in every library."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import classlens
from classlens import ClasslensError, Edit, EditStep
from classlens.forward.attribution_patching import EstimateReceiver, attribution_patching
from classlens.forward.edits.columns import joined_heads
from classlens.forward.edits.edit import EXPOSED_POINTS, editing
from classlens.forward.hooks import replacing, watching
from classlens.forward.run import run
from classlens.forward.sweep import Part
from classlens.models.view import ModelView
from tests import zoo
from tests.forward.models import IMPLEMENTATIONS, OTHERS, POOLINGS, pixels_of, view_of


def measure(logits: Tensor) -> Tensor:
    return logits.log_softmax(dim=1)[:, 1]


class Kept(EstimateReceiver):
    """Estimates ``[image, part]``, and logits as they are."""

    def __init__(self, images: int, parts: int) -> None:
        self.changes = torch.full((images, parts), torch.nan, dtype=torch.float64)
        self.base: list[Any] = [None] * images
        self.source: list[Any] = [None] * images

    def unpatched(self, images: slice, base: Tensor, source: Tensor | None) -> None:
        assert source is not None
        self.base[images], self.source[images] = list(base), list(source)

    def measure(self, images: slice, logits: Tensor) -> Tensor:
        assert len(logits) == len(self.base[images])
        assert all(row is not None for row in self.base[images]), "logits are taken before they are measured"
        return measure(logits)

    def estimated(self, images: slice, changes: Tensor) -> None:
        assert bool(self.changes[images].isnan().all())
        self.changes[images] = changes.double()


def estimates(
    view: ModelView, base: Tensor, source: Tensor, parts: list[Part], steps: int = 1, batch_size: int = 64
) -> Tensor:
    kept = Kept(len(base), len(parts))
    attribution_patching(view, base, source, parts, kept, steps=steps, batch_size=batch_size)
    with torch.no_grad():
        torch.testing.assert_close(torch.stack(kept.base), view.run(base))
        torch.testing.assert_close(torch.stack(kept.source), view.run(source))
    return kept.changes


def parts_of(view: ModelView, block: int) -> list[Part]:
    """Parts of every kind in a block."""
    point, channels = joined_heads(view, block)
    head, token = view.blocks[block].heads - 1, slice(1, 2)
    found = [
        Part(point, block, columns=slice(head * channels, (head + 1) * channels)),
        Part("mlp_coefficients", block, columns=slice(3, 4)),
        *(Part(site, block, tokens=token) for site in ("resid_pre", "attn_out", "mlp_out", "resid_post")),
        *(Part(site, block) for site in ("attn_out", "mlp_out")),
    ]
    return [part for part in found if view.blocks[block].points[part.point].editable]


def slope(view: ModelView, pixels: Tensor, source: Tensor, part: Part) -> Tensor:
    """Change of the metric by a small step of one part towards what passes there for the source."""
    exposed = part.point in EXPOSED_POINTS
    theirs: dict[int, Tensor] = {}
    run(view, source, {part.point: theirs.__setitem__}, exposing_coefficients=exposed)
    step = 1e-4

    def moved(sign: int, x: Tensor, held: slice) -> Tensor:
        inside = torch.zeros(theirs[part.block].shape)
        inside[:, part.tokens, part.columns] = 1
        inside, target = (each[..., held] for each in (inside, theirs[part.block]))
        return x + sign * step * inside * (target - x)

    ends = []
    for sign in (1, -1):
        with replacing(view.blocks[part.block].points[part.point], partial(moved, sign)):
            ends.append(measure(run(view, pixels, exposing_coefficients=exposed)))
    return (ends[0] - ends[1]) / (2 * step)


def estimates_are_slopes(name: str) -> None:
    view = view_of(name)
    base, source = pixels_of(view, 2, seed=3), pixels_of(view, 2, seed=4)
    parts = [part for block in (0, len(view.blocks) - 1) for part in parts_of(view, block)]
    before = zoo.snapshot(view.module)
    changes = estimates(view, base, source, parts)
    assert zoo.snapshot(view.module) == before
    assert all(parameter.grad is None for parameter in view.module.parameters())
    expected = torch.stack([slope(view, base, source, part) for part in parts], dim=1)
    assert float((expected.abs() > 1e-4).double().mean()) > 0.4, "parts that do something"
    # The error of a central difference is of order step² · f''', and of rounding 1e-14 / step.
    torch.testing.assert_close(changes, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*IMPLEMENTATIONS, *POOLINGS])
def test_every_library_against_finite_differences(name: str) -> None:
    estimates_are_slopes(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OTHERS if name not in POOLINGS])
def test_every_other_model_against_finite_differences(name: str) -> None:
    estimates_are_slopes(name)


def count(rows: list[int], block: int, x: Tensor) -> None:
    if block == 1:
        rows.append(len(x))


@pytest.mark.parametrize("steps", [1, 3])
def test_any_batch_size_in_as_few_passes_as_possible(steps: int) -> None:
    view = classlens.load(zoo.build("cls_registers")).view
    base, source = zoo.pixels("cls", 5), zoo.pixels("cls", 5, seed=5)
    parts = [part for block in (2, 0, 1) for part in parts_of(view, block)]
    alone = [estimates(view, base[[i]], source[[i]], parts, steps) for i in range(5)]
    for batch_size in (1, 2, 64):
        rows: list[int] = []
        with watching(view, {"resid_post": partial(count, rows)}):
            kept = Kept(5, len(parts))
            attribution_patching(view, base, source, parts, kept, steps=steps, batch_size=batch_size)
        torch.testing.assert_close(kept.changes, torch.cat(alone), rtol=0, atol=1e-10)
        assert max(rows) == min(batch_size, 5)
        assert sum(rows) == 5 * (2 if steps == 1 else 2 + steps)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_contexts_of_the_caller(context: Any) -> None:
    lens = classlens.load(zoo.build("cls"))
    base, source = zoo.pixels("cls", 2), zoo.pixels("cls", 2, seed=5)
    expected = lens.sweep(base, source, target=1, approximate=True, steps=2)
    with context():
        assert lens.sweep(base.clone(), source.clone(), target=1, approximate=True, steps=2).equals(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    views = [classlens.load(zoo.build("cls_layer_scale", each)).view for each in (torch.float64, dtype)]
    parts = [part for block in range(3) for part in parts_of(views[0], block)]
    base, source = zoo.pixels("cls", 2), zoo.pixels("cls", 2, seed=5)
    kept = [Kept(2, len(parts)) for _ in views]
    for view, receiver in zip(views, kept, strict=True):
        attribution_patching(view, base, source, parts, receiver, steps=1, batch_size=2)
    error = (kept[1].changes - kept[0].changes).abs().max() / kept[0].changes.abs().max()
    # Rounding goes through three blocks twice: some hundred eps. Weights of bfloat16 are rounded, too.
    assert float(error) < 100 * torch.finfo(dtype).eps / (1 if dtype == torch.float32 else 10)


class Constant(Edit):
    """All that the MLP of block 1 reads of its hidden units, and what attention of block 2 writes, is the same."""

    label, about = "constant", "constants in two places"

    def steps(self, view: ModelView) -> Iterator[EditStep]:
        for point, block in (("mlp_coefficients", 1), ("attn_out", 2)):
            yield EditStep(point, block, lambda x, _: torch.ones_like(x))


def test_under_edits() -> None:
    """Parts before a constant do nothing; the others do what they do in a model that is built so."""
    vit: Any = zoo.build("cls_layer_scale")
    view = classlens.load(vit).view
    base, source = zoo.pixels("cls", 2), zoo.pixels("cls", 2, seed=5)
    parts = [part for block in range(3) for part in parts_of(view, block)]
    with editing(view, [Constant()]):
        changes = estimates(view, base, source, parts)
        expected = torch.stack([slope(view, base, source, part) for part in parts], dim=1)
    torch.testing.assert_close(changes, expected, rtol=1e-4, atol=1e-5)
    nothing = [part.point == "mlp_coefficients" and part.block == 1 for part in parts]
    assert bool((changes[:, nothing] == 0).all())
    assert float((changes - estimates(view, base, source, parts)).abs().max()) > 0.01


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("where", ["measure", "estimated", "block"])
def test_an_exception_in_the_middle_leaves_no_trace(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vit: Any = zoo.build("cls")
    view = classlens.load(vit).view
    base, source = zoo.pixels("cls", 2), zoo.pixels("cls", 2, seed=5)
    vit.blocks[2].norm1.train()
    before = zoo.snapshot(vit)

    def stopped(*_: Any, **__: Any) -> Any:
        raise Interrupted

    parts = parts_of(view, 1)
    receiver = Kept(2, len(parts))
    if where == "block":
        monkeypatch.setattr(receiver, "unpatched", lambda *_: monkeypatch.setattr(nn.functional, "gelu", stopped))
    else:
        monkeypatch.setattr(receiver, where, stopped)
    with pytest.raises(Interrupted):
        attribution_patching(view, base, source, parts, receiver, steps=2, batch_size=5)
    monkeypatch.undo()
    assert zoo.snapshot(vit) == before
    assert all(parameter.grad is None for parameter in vit.parameters())
    assert torch.is_grad_enabled()
    assert not base.requires_grad


def test_a_part_that_cannot_be_replaced() -> None:
    view = view_of("timm parallel scaling, LayerScale, one bias")
    x = pixels_of(view, 1)
    with pytest.raises(ClasslensError, match="attn_out, so it cannot be edited there: edit one of"):
        estimates(view, x, x, [Part("attn_out", 0)])
