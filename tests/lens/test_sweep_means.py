"""Sweeps to means of a data set, against the model written out with the means put in by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import classlens
from classlens import AblateHeads, AblateNeurons, AblateSublayer, KeepTokens
from tests import zoo
from tests.forward.edits.by_hand import by_hand
from tests.forward.edits.random_means import random_means
from tests.refusals import refused

NAME = "cls_layer_scale"


def model() -> tuple[Any, classlens.Lens, Tensor, classlens.Means]:
    vit: Any = zoo.build(NAME)
    lens = classlens.load(vit)
    return vit, lens, zoo.pixels(NAME, 3), random_means(lens.view)


def test_every_head_becomes_its_mean() -> None:
    vit, lens, x, means = model()
    result = lens.sweep(x, means, metric="logit", target=[0, 2, 1], direction="noise", batch_size=7)
    channels = vit.blocks[0].attn.head_dim

    def logits(chosen: set[tuple[int, int]]) -> Tensor:
        def put_in(block: int, z: Tensor) -> Tensor:
            z = z.clone()
            for at, head in chosen:
                if at == block:
                    z[:, head] = means.values[f"attn_coefficients.{block}"][:, head * channels : (head + 1) * channels]
            return z

        return by_hand(vit, x, heads=put_in)[range(3), [0, 2, 1]]

    every = {(block, head) for block in range(3) for head in range(3)}
    clean, corrupt = logits(set()), logits(every)
    torch.testing.assert_close(torch.from_numpy(result.clean.values), clean, rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.from_numpy(result.corrupt.values), corrupt, rtol=0, atol=1e-10)
    for block, head in every:
        patched, one = logits({(block, head)}), result.sel(block=block, head=head)
        torch.testing.assert_close(torch.from_numpy(one.patched.values), patched, rtol=0, atol=1e-10)
        expected = (patched - clean) / (corrupt - clean)
        torch.testing.assert_close(torch.from_numpy(one.effect.values), expected, rtol=1e-8, atol=0)
    assert set(result.corrupt_image.values.tolist()) == {"means of drawn"}


@pytest.mark.parametrize(
    ("over", "given", "edit"),
    [
        ("units", {"parts": [5, 7]}, lambda means, block, unit: AblateNeurons([unit], blocks=[block], to=means)),
        ("sublayers", {}, lambda means, block, name: AblateSublayer(name, blocks=block, to=means)),
        (
            "tokens",
            {"site": "mlp_out", "parts": [0, 3]},
            lambda means, block, token: AblateSublayer("mlp", blocks=block, tokens=[token], to=means),
        ),
    ],
)
def test_other_parts_against_edits(over: str, given: dict[str, Any], edit: Any) -> None:
    _, lens, x, means = model()
    result = lens.sweep(x, means, over, direction="noise", **given)
    dim = result.effect.dims[2]
    for block in range(3):
        for label in result[dim].values.tolist():
            with lens.edit(edit(means, block, label)):
                logits = lens.view.run(x)
            p = logits.softmax(dim=1).gather(1, torch.from_numpy(result.target.values)[:, None])[:, 0]
            found = result.patched.sel({"block": block, dim: label}).values
            torch.testing.assert_close(torch.from_numpy(found), torch.log(p / (1 - p)), rtol=0, atol=1e-9)


def test_the_rival_of_the_images_without_their_parts() -> None:
    _, lens, x, means = model()
    every = [AblateHeads("all", blocks=block, to=means) for block in range(3)]
    with lens.edit(*every):
        rivals = lens.view.run(x).argmax(dim=1)
    target = [int((rival + 1) % zoo.CLASSES) for rival in rivals]
    given: dict[str, Any] = {"metric": "logit_difference", "target": target, "direction": "noise"}
    result = lens.sweep(x, means, against="predicted", **given)
    assert result.against.values.tolist() == rivals.tolist()


def test_refusals() -> None:
    _, lens, x, means = model()
    refused(lambda: lens.sweep(x, means), "direction='denoise' was given with means", "give direction='noise'")
    refused(lambda: lens.sweep(x, means, direction="noise", approximate=True), "approximate=True was given with means")
    refused(lambda: lens.sweep(x, means, "tokens", direction="noise"), "no values at resid_pre", "site='attn_out'")
    other = classlens.load(zoo.build("cls_registers"))
    refused(lambda: other.sweep(zoo.pixels("cls_registers", 1), means, direction="noise"), "other weights")
    with lens.edit(KeepTokens(torch.arange(5) != 3)):
        assert lens.sweep(x, means, direction="noise", blocks=0).effect.shape == (3, 1, 3)
