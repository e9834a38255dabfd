"""Models whose logits are a sum over several readouts: two heads, or one head split between two vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from classlens import Lens
from classlens.core.space import ClassSpace
from classlens.models import timm as timm_family
from classlens.models.classes import Classes
from classlens.models.load import LoadedModel
from classlens.models.transforms import Preprocessing
from classlens.models.view import SITES, Readout
from tests import literal, zoo

WIDTH, CLASSES = 24, 11
PIXELS = zoo.pixels("cls")


class _TwoHeads(VisionTransformer):
    """As a distilled DeiT: ``[CLS]`` and the second token have a head each, and the logits are their mean."""

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        model: Any = self
        logits: Tensor = 0.3 * model.head(x[:, 0]) + 0.7 * model.second(x[:, 1])
        return logits


class _SplitHead(VisionTransformer):
    """As DINOv2's classifiers: one head on ``[CLS]`` beside the mean of the image tokens."""

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        model: Any = self
        logits: Tensor = model.both(torch.cat([x[:, 0], x[:, 2:].mean(dim=1)], dim=1))
        return logits


def _made(kind: str) -> tuple[Any, Lens, list[tuple[Any, tuple[int, ...], float]]]:
    """A model, its lens, and each readout as a head, the tokens it pools and its weight."""
    family = {"two heads": _TwoHeads, "split head": _SplitHead}[kind]
    model: Any = family(
        img_size=16, patch_size=8, embed_dim=WIDTH, depth=3, num_heads=3, mlp_ratio=2, num_classes=CLASSES, reg_tokens=1
    )
    heads: list[Any]
    if kind == "two heads":
        model.second = nn.Linear(WIDTH, CLASSES)
        zoo.randomize(model)
        heads = [model.head, model.second]
    else:
        model.both = nn.Linear(2 * WIDTH, CLASSES)
        zoo.randomize(model)
        heads = [nn.Linear(WIDTH, CLASSES), nn.Linear(WIDTH, CLASSES)]
        for head, weight in zip(heads, model.both.weight.detach().split(WIDTH, dim=1), strict=True):
            head.load_state_dict({"weight": weight, "bias": model.both.bias.detach()})
    model.double().eval()
    heads = [head.double() for head in heads]
    literals: list[tuple[Any, tuple[int, ...], float]]
    view = timm_family.describe(model, kind)
    norms = view.space.before
    spaces = [ClassSpace(norms, (), head.weight.detach(), head.bias.detach()) for head in heads]
    if kind == "two heads":
        readouts = (
            Readout(spaces[0], slice(0, 1), weight=0.3),
            Readout(spaces[1], slice(1, 2), tokens=slice(1, 2), weight=0.7),
        )
        literals = [(heads[0], (0,), 0.3), (heads[1], (1,), 0.7)]
    else:
        readouts = (
            Readout(spaces[0], slice(0, 1)),
            # The register is not pooled, yet read like the image tokens.
            Readout(spaces[1], slice(2, None), tokens=slice(1, None), counts_bias=False),
        )
        without_bias = nn.Linear(WIDTH, CLASSES).double()
        without_bias.load_state_dict({"weight": heads[1].weight, "bias": torch.zeros(CLASSES)})
        literals = [(heads[0], (0,), 1.0), (without_bias, (2, 3, 4, 5), 1.0)]
    classes = Classes(tuple(f"class {index}" for index in range(CLASSES)))
    return model, Lens(LoadedModel(replace(view, readouts=readouts), Preprocessing(None), classes)), literals


KINDS = pytest.mark.parametrize("kind", ["two heads", "split head"])


@KINDS
def test_the_readouts_together_give_the_model_s_logits(kind: str) -> None:
    model, lens, _ = _made(kind)
    assert lens.check(PIXELS).law2 < 1e-11
    with torch.no_grad():
        np.testing.assert_array_equal(lens.trace(PIXELS).model_logits, model(PIXELS))


@KINDS
def test_each_token_is_projected_through_its_own_head(kind: str) -> None:
    model, lens, _ = _made(kind)
    states = literal.states(model, PIXELS)
    trace, target = lens.trace(PIXELS), zoo.targets()
    for site in SITES:
        with torch.no_grad():
            x = model.norm(torch.stack(states[site], dim=1))
            if kind == "two heads":
                expected = model.head(x)
                expected[:, :, 1] = model.second(x[:, :, 1])
            else:
                both = model.both
                expected = x @ both.weight[:, :WIDTH].T + both.bias
                expected[:, :, 1:] = x[:, :, 1:] @ both.weight[:, WIDTH:].T + both.bias
        np.testing.assert_allclose(trace.logits(site), expected, rtol=0, atol=1e-11)
        target_logits = torch.stack([expected[image, ..., index] for image, index in enumerate(target)])
        rank = (expected > target_logits[..., None]).sum(dim=-1)
        for facts in (trace.facts(site, target), lens.facts(PIXELS, site, target)):
            np.testing.assert_array_equal(facts["rank"].isel(site=0), rank)
            np.testing.assert_array_equal(facts["top1"].isel(site=0), expected.argmax(dim=-1))
            np.testing.assert_allclose(facts["logit"].isel(site=0), target_logits, rtol=0, atol=1e-11)
        np.testing.assert_array_equal(trace.top(site, 1).isel(place=0), expected.argmax(dim=-1))


@KINDS
def test_attribution_adds_up_over_the_readouts(kind: str) -> None:
    model, lens, literals = _made(kind)
    target = zoo.targets()
    parts = lens.trace(PIXELS).attribution(target)
    with torch.no_grad():
        logits = model(PIXELS).gather(1, target[:, None])[:, 0]
    summed = parts.embed + parts.attention.sum(("block", "head")) + parts.mlp.sum("block") + parts.bias
    np.testing.assert_allclose(summed, logits, rtol=0, atol=1e-10)
    expected: dict[str, Any] = {}
    for head, pooled, weight in literals:
        model.head = head
        for part, value in literal.attribution(model, PIXELS, target, pooled=pooled).items():
            expected[part] = expected.get(part, 0) + weight * value
    for part, value in expected.items():
        np.testing.assert_allclose(parts[part], value, rtol=0, atol=1e-10, err_msg=part)
