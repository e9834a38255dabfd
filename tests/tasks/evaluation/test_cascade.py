"""Weights that become random stage by stage, in every library."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch

import classlens
from classlens.engine.model_source import ModelSource
from classlens.lens.lens import Lens
from classlens.tasks.evaluation.cascade import Cascade
from classlens.tasks.evaluation.task import twin_of
from tests.models import tiny_timm
from tests.models.library_models import MODELS
from tests.tasks.evaluation.batches import lens_of


def test_stages_of_a_cascade() -> None:
    """The head first, then the blocks from the last to the first, then the embedding; and back."""
    lens, twin = lens_of(seed=0, dtype=torch.float32), lens_of(seed=7, dtype=torch.float32)
    trained, drawn = (deepcopy(x.view.module.state_dict()) for x in (lens, twin))
    cascade = Cascade(lens, twin)
    assert cascade.stages == 5
    order = ["head.", "blocks.2.", "blocks.1.", "blocks.0.", "patch_embed."]
    for stages in (0, 1, 2, 3, 5, 4, 1):
        weights = dict(cascade.at(stages).view.module.state_dict())
        for stage, prefix in enumerate(order):
            source = drawn if stage < stages else trained
            for key in (key for key in weights if key.startswith(prefix)):
                assert torch.equal(weights[key], source[key]), (stages, key)
    assert torch.equal(cascade.at(1).view.module.state_dict()["norm.weight"], drawn["norm.weight"])
    assert torch.equal(cascade.at(4).view.module.state_dict()["pos_embed"], trained["pos_embed"])
    assert all(torch.equal(value, trained[key]) for key, value in lens.view.module.state_dict().items())


FAMILIES = [name for name in MODELS if not name.startswith("timm")] + ["timm cls_registers", "timm avg_post_norm"]
FAMILIES += [f"family {name}" for name in ("DeiT distilled", "SigLIP", "BEiT", "EVA-02", "parallel branches (18x2)")]


def trained_twin_and_copy(name: str) -> tuple[Lens, Lens, Lens]:
    """A model, a twin that differs in every tensor, and a copy of the twin."""
    family = name.removeprefix("family ")
    module = (MODELS[name]() if family == name else tiny_timm.FAMILIES[family].make()).double()
    other = deepcopy(module)
    with torch.no_grad():
        for number, value in enumerate((*other.parameters(), *other.buffers())):
            if value.is_floating_point():
                generator = torch.Generator().manual_seed(number)
                value.add_(0.3 * torch.rand(value.shape, generator=generator, dtype=torch.float64))
    return classlens.load(module), classlens.load(other), classlens.load(deepcopy(other))


def last_states(lens: Lens, pixels: torch.Tensor) -> torch.Tensor:
    return lens.trace(pixels).recording.state("resid_post", len(lens.view.blocks) - 1, slice(None))


@pytest.mark.parametrize("name", FAMILIES)
def test_without_random_stages_maps_are_those_of_the_model(name: str) -> None:
    """In every library, also for methods that use the module's logits; with all stages random, those of the twin."""
    lens, twin, drawn = trained_twin_and_copy(name)
    pixels = torch.rand(2, lens.view.channels, *lens.view.input_size, dtype=torch.float64)
    cascade = Cascade(lens, twin)
    target = torch.tensor([0, 1])
    for stages, expected_lens in ((cascade.stages, drawn), (0, lens)):
        mixed = cascade.at(stages)
        for method in ("class_gradient", "class_rank", "legrad", "grad_cam", "chefer"):
            options = {"query": (0, 0)} if method == "chefer" else {}
            maps, expected = (
                x.trace(pixels).explain(target, method=method, **options).values for x in (mixed, expected_lens)
            )
            np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-9)
    assert set(cascade._stage.values()) == set(range(cascade.stages))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_head_is_everything_after_the_last_block(name: str) -> None:
    lens, twin, drawn = trained_twin_and_copy(name)
    pixels = torch.rand(2, lens.view.channels, *lens.view.input_size, dtype=torch.float64)
    cascade = Cascade(lens, twin)
    for stages in range(cascade.stages + 1):
        mixed = cascade.at(stages)
        mixed.check(pixels)
        with torch.no_grad():
            # The head of the other model on the output of these blocks.
            expected = (drawn if stages else lens).view.logits(last_states(mixed, pixels))
            torch.testing.assert_close(mixed.view.run(pixels), expected, rtol=0, atol=1e-9)
            if stages == 1:
                torch.testing.assert_close(last_states(mixed, pixels), last_states(lens, pixels), rtol=0, atol=0)


def test_a_twin_of_another_shape() -> None:
    with pytest.raises(classlens.ClasslensError, match="do not have the same weights"):
        Cascade(lens_of("cls"), lens_of("cls_registers"))


def test_the_built_in_twin_is_not_the_initialization_of_the_training() -> None:
    """Features grow along the initial class embedding, so such a twin would not be random to them."""
    source = ModelSource("builtin:cifar10", {})
    similarity = []
    for twin in (source.random_twin(0), twin_of(source, 0)):
        rows = torch.nn.functional.cosine_similarity(twin.view.space.weight, source.lens.view.space.weight)
        similarity.append(float(rows.mean().abs()))
    # Cosines of independent rows of 128 numbers have a standard deviation of 0.09, the mean of ten of 0.03.
    assert similarity[0] > 0.2
    assert similarity[1] < 0.1
