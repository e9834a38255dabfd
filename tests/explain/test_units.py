"""Contributions of units: by hand, and as parts of what attribution gives for their sublayer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import classlens
from classlens import AblateNeurons, AblateSublayer, Edit, Patch
from classlens.explain.attribution import LogitSum, attribute
from classlens.explain.units import UnitContributions, unit_contributions
from classlens.forward.agreement import COEFFICIENTS, SUBLAYERS, Sublayer
from classlens.forward.recording import Recording
from classlens.forward.run import run
from tests import literal, zoo
from tests.forward.edits.random_means import random_means
from tests.forward.models import pixels_of, view_of
from tests.models.library_models import CASES

Coefficients = dict[tuple[Sublayer, int], Tensor]


def coefficients_of(recording: Recording) -> Coefficients:
    """Memory coefficients of the recorded pixels, up to the last pooled token."""
    count = max(readout.pooled.indices(recording.tokens.count)[1] for readout in recording.view.readouts)
    kept: Coefficients = {}

    def receive(name: str, block: int, x: Tensor) -> None:
        kept[COEFFICIENTS[name], block] = x[:, :count]

    receivers = {name: lambda block, x, name=name: receive(name, block, x) for name in COEFFICIENTS}
    run(recording.view, recording.pixels, receivers, exposing_coefficients=True)
    return kept


def close(value: Tensor, expected: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(value, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("name", zoo.VARIANTS)
def test_each_unit_is_that_of_the_frozen_model(name: str) -> None:
    pooled = zoo.VARIANTS[name].pooled
    expected = literal.units(zoo.build(name), zoo.pixels(name), zoo.targets(), pooled=pooled)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        recording = classlens.load(zoo.build(name, dtype)).trace(zoo.pixels(name, dtype=dtype)).recording
        coefficients = coefficients_of(recording)
        for (sublayer, block), x in coefficients.items():
            units, bias = unit_contributions(recording, zoo.targets(), sublayer, block, x)
            assert units.dtype == dtype
            assert units.abs().max() > 1e-3
            close(units.double(), expected[sublayer][:, block], tolerance)
            close(bias.double(), expected[f"{sublayer}_bias"][:, block], tolerance)


def check_sums(recording: Recording, target: Tensor, tolerance: float = 1e-9) -> None:
    """Channels add up to their head and hidden units to their MLP, by the parts of ``attribute``."""
    parts, coefficients = attribute(recording, target), coefficients_of(recording)
    constant = LogitSum.of(recording, target, slice(0, len(recording))).bias
    total = constant + parts.embed
    for (sublayer, block), x in coefficients.items():
        units, bias = unit_contributions(recording, target, sublayer, block, x)
        total = total + units.sum(dim=1) + bias
        if sublayer == "attn":
            heads = units.unflatten(1, (recording.view.blocks[block].heads, -1)).sum(dim=-1)
            close(heads, parts.attention[:, block].sum(dim=-1) + parts.replaced[:, block], tolerance)
        elif not recording.edited_points() & {"mlp_out", "mlp_raw"}:
            close(units.sum(dim=1), parts.mlp[:, block], tolerance)
    close(total, recording.logits @ target.mT if target.is_floating_point() else by_class(recording, target), tolerance)


def by_class(recording: Recording, target: Tensor) -> Tensor:
    return recording.logits.gather(1, target[:, None])[:, 0]


@pytest.mark.parametrize("name", [name for name, tiny in CASES.items() if tiny.attributed])
def test_units_add_up_in_every_family(name: str) -> None:
    torch.manual_seed(0)
    tiny = CASES[name]
    recording = classlens.load(tiny.make()).trace(tiny.pixels()).recording
    check_sums(recording, torch.arange(len(recording)) + 1)


@pytest.mark.parametrize("name", ["timm cls_registers", "timm avg_post_norm", "timm EVA-02"])
def test_units_add_up_under_edits(name: str) -> None:
    """Values that an edit put in count to their unit; a whole output that it put in to none."""
    lens = classlens.load(view_of(name))
    pixels, source = pixels_of(lens.view, 3), pixels_of(lens.view, 3, seed=9)
    means = random_means(lens.view)
    edits: list[tuple[Edit, ...]] = [
        (AblateNeurons([0, 3], blocks=[1], to=means), AblateNeurons([1, 9], blocks=[0], sublayer="attn", to=means)),
        (Patch("heads", source=source, blocks=[1], heads=[0], tokens=[0, 2]),),
        (AblateSublayer("mlp", blocks=[1], tokens=[0], to=means), AblateSublayer("attn", blocks=[0], to=means)),
    ]
    for each in edits:
        with lens.edit(*each):
            recording = lens.trace(pixels).recording
            check_sums(recording, torch.tensor([1, 0, 3]))


def test_several_targets_and_images() -> None:
    """A weighted sum of logits is that sum of contributions; other images, and longer coefficients, change nothing."""
    name = "avg_two_norms"
    recording = classlens.load(zoo.build(name)).trace(zoo.pixels(name)).recording
    coefficients, every = coefficients_of(recording), torch.full((3,), 0)
    weights = torch.randn(3, zoo.CLASSES, dtype=torch.float64)
    for sublayer in SUBLAYERS:
        x = coefficients[sublayer, 1]
        classes = [every + category for category in range(zoo.CLASSES)]
        each = UnitContributions(recording, classes).of(sublayer, 1, x)
        units, bias = unit_contributions(recording, weights, sublayer, 1, x)
        close(units, torch.stack([weights[:, c, None] * each[c][0] for c in range(zoo.CLASSES)]).sum(dim=0))
        close(bias, torch.stack([weights[:, c] * each[c][1] for c in range(zoo.CLASSES)]).sum(dim=0))
        (part,) = UnitContributions(recording, [weights[1:]], slice(1, 3)).of(sublayer, 1, x[1:])
        close(part[0], units[1:])
        close(part[1], bias[1:])
