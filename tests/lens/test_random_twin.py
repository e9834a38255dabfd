"""The random twin beside the initialization of the library."""

from __future__ import annotations

import numpy as np
import timm
import torch

import classlens
from classlens.lens.lens import Lens
from classlens.lens.random_twin import random_twin

NAME = "test_vit2"  # with LayerScale, which timm starts at 1e-5
OPTIONS = {"num_classes": 10, "pretrained": False}


def trained() -> Lens:
    lens = classlens.load(NAME, pretrained=False, num_classes=10)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for block in lens.view.module.blocks:
            for layer_scale in (block.ls1, block.ls2):
                layer_scale.gamma.copy_(torch.rand(layer_scale.gamma.shape, generator=generator))
    return lens


def gammas(lens: Lens) -> list[torch.Tensor]:
    return [value for key, value in lens.view.module.state_dict().items() if key.endswith("gamma")]


def test_layer_scale_has_the_values_of_the_trained_model_in_another_order() -> None:
    lens = trained()
    twin, again, other = (random_twin(NAME, lens, OPTIONS, seed) for seed in (0, 0, 1))
    assert len(gammas(twin)) == 2 * len(lens.view.blocks)
    for drawn, same, different, given in zip(*map(gammas, (twin, again, other, lens)), strict=True):
        assert torch.equal(drawn.sort().values, given.sort().values)
        assert not torch.equal(drawn, given)
        assert torch.equal(drawn, same)
        assert not torch.equal(drawn, different)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        library = timm.create_model(NAME, num_classes=10)
    for key, value in library.state_dict().items():
        if not key.endswith("gamma") and key != "head.weight":
            assert torch.equal(value, twin.view.module.state_dict()[key]), key


def test_a_twin_says_something_of_every_block() -> None:
    """With LayerScale as the library starts it, all blocks give the ranks of the embedding."""
    lens, pixels = trained(), torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(1))
    twin = random_twin(NAME, lens, OPTIONS, 0)
    flat = classlens.load(NAME, pretrained=False, num_classes=10)
    changes = []
    for model in (twin, flat):
        ranks = model.trace(pixels).rank(target=3).values
        changes.append(float((np.diff(ranks, axis=1) != 0).mean()))
    assert changes[0] > 0.05
    assert changes[1] < 0.002
