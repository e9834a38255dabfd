"""Sanity checks: correlations against scipy, weights that become random stage by stage, and completeness."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import spearmanr

import classlens
from classlens.core.stats import Statistics
from classlens.lens.lens import Lens
from classlens.lens.random_twin import random_twin
from classlens.tasks.evaluation.cascade import Cascade
from classlens.tasks.evaluation.image_batch import Settings
from classlens.tasks.evaluation.method_spec import parse_methods
from classlens.tasks.evaluation.sanity import ClassSensitivity, Completeness, Randomization, rank_correlation
from tests import zoo
from tests.models import tiny_timm
from tests.models.library_models import MODELS
from tests.tasks.evaluation.batches import lens_of, seen

NAME = "cls_not_square"


def test_rank_correlation_with_ties_and_without_any_order() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randint(0, 5, (6, 20), generator=generator).float() for _ in range(2))
    found = rank_correlation(one, other)
    for image in range(6):
        assert found[image] == pytest.approx(spearmanr(one[image], other[image]).statistic, abs=1e-12)
    assert np.isnan(rank_correlation(torch.zeros(1, 5), torch.rand(1, 5))).all()
    assert rank_correlation(one, 3 * one + 1) == pytest.approx(np.ones(6))


def test_stages_of_a_cascade() -> None:
    """The head first, then the blocks from the last to the first, then the embedding; and back."""
    lens, twin = lens_of(seed=0, dtype=torch.float32), lens_of(seed=7, dtype=torch.float32)
    trained, drawn = (dict(each.view.module.state_dict()) for each in (lens, twin))
    trained, drawn = ({key: value.clone() for key, value in each.items()} for each in (trained, drawn))
    cascade = Cascade(lens, twin)
    assert cascade.stages == 5
    order = ["head.", "blocks.2.", "blocks.1.", "blocks.0.", "patch_embed."]
    for stages in (0, 1, 2, 3, 5, 4, 1):
        now = dict(cascade.at(stages).view.module.state_dict())
        for place, prefix in enumerate(order):
            source = drawn if place < stages else trained
            for key in (key for key in now if key.startswith(prefix)):
                assert torch.equal(now[key], source[key]), (stages, key)
    assert torch.equal(cascade.at(1).view.module.state_dict()["norm.weight"], drawn["norm.weight"])
    assert torch.equal(cascade.at(4).view.module.state_dict()["pos_embed"], trained["pos_embed"])
    assert all(torch.equal(value, trained[key]) for key, value in lens.view.module.state_dict().items())


FAMILIES = [name for name in MODELS if not name.startswith("timm")] + ["timm cls_registers", "timm avg_post_norm"]
FAMILIES += [f"family {name}" for name in ("DeiT distilled", "SigLIP", "BEiT", "EVA-02", "parallel branches (18x2)")]


def three(name: str) -> tuple[Lens, Lens, Lens]:
    """A model, and twice another one that differs in every tensor, loaded when it had its own weights."""
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
def test_without_a_random_stage_it_is_the_model_itself(name: str) -> None:
    """In every library: what the maps are made of is all put back, for those of the module's own logits, too."""
    lens, twin, drawn = three(name)
    pixels = torch.rand(2, lens.view.channels, *lens.view.input_size, dtype=torch.float64)
    cascade = Cascade(lens, twin)
    target = torch.tensor([0, 1])
    for stages, wanted in ((cascade.stages, drawn), (0, lens)):
        again = cascade.at(stages)
        for method in ("class_gradient", "class_rank", "legrad", "grad_cam", "chefer"):
            options = {"query": (0, 0)} if method == "chefer" else {}
            found, expected = (each.trace(pixels).explain(target, method=method, **options) for each in (again, wanted))
            np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-9)
    assert set(cascade._stage.values()) == set(range(cascade.stages))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_head_is_what_acts_after_the_last_block(name: str) -> None:
    lens, twin, drawn = three(name)
    pixels = torch.rand(2, lens.view.channels, *lens.view.input_size, dtype=torch.float64)
    cascade = Cascade(lens, twin)
    for stages in range(cascade.stages + 1):
        now = cascade.at(stages)
        now.check(pixels)
        with torch.no_grad():
            # The other model's head on what comes out of these blocks.
            head = (drawn if stages else lens).view.logits(last_states(now, pixels))
            torch.testing.assert_close(now.view.run(pixels), head, rtol=0, atol=1e-9)
            if stages == 1:
                torch.testing.assert_close(last_states(now, pixels), last_states(lens, pixels), rtol=0, atol=0)


def test_correlation_at_each_stage() -> None:
    lens, twin = lens_of(seed=0), lens_of(seed=7)
    pixels, target = zoo.pixels(NAME, 2), zoo.targets(2)
    (method,) = parse_methods(["class_gradient:loss=logit"])
    cascade = Cascade(lens, twin)
    found = Randomization().measure(seen(lens, pixels, target, cascade=lambda: cascade), method)["correlation"]
    assert found.shape == (2, 5)
    own = method.importance(lens.trace(pixels), target)
    # All random: the twin itself, built anew.
    whole = method.importance(lens_of(seed=7).trace(pixels), target)
    mixed: Any = zoo.build(NAME)
    mixed.load_state_dict(
        {
            key: value if key.startswith(("norm.", "head.")) else zoo.build(NAME).state_dict()[key]
            for key, value in zoo.build(NAME, seed=7).state_dict().items()
        }
    )
    head = method.importance(classlens.load(mixed).trace(pixels), target)
    for image in range(2):
        assert found[image, -1] == pytest.approx(spearmanr(own[image], whole[image]).statistic, abs=1e-6)
        assert found[image, 0] == pytest.approx(spearmanr(own[image], head[image]).statistic, abs=1e-6)


def test_a_twin_of_another_shape() -> None:
    with pytest.raises(classlens.ClasslensError, match="not the same weights"):
        Cascade(lens_of("cls"), lens_of("cls_registers"))


def test_the_built_in_twin_is_not_what_training_began_with() -> None:
    """Features grow along the class embedding that they began with, so it would not be random to them."""
    from classlens.tasks.evaluation.job import twin_of

    lens = classlens.load("builtin:cifar10")
    alike = []
    for twin in (random_twin("builtin:cifar10", lens, {}, 0), twin_of("builtin:cifar10", lens, {}, 0)):
        rows = torch.nn.functional.cosine_similarity(twin.view.space.weight, lens.view.space.weight)
        alike.append(float(rows.mean().abs()))
    # Of independent rows of 128 numbers the cosines are 0.09 large, the mean of ten 0.03.
    assert alike[0] > 0.2
    assert alike[1] < 0.1


def test_class_sensitivity() -> None:
    lens, pixels, target = lens_of(), zoo.pixels(NAME, 3), zoo.targets(3)
    (method,) = parse_methods(["class_gradient:loss=logit"])
    settings = Settings(seed=2)
    whole = ClassSensitivity().measure(seen(lens, pixels, target, settings=settings), method)["correlation"]
    # An image's other class is its own, whatever it is measured with.
    last = seen(lens, pixels[2:], target[2:], settings=settings, first=2)
    assert ClassSensitivity().measure(last, method)["correlation"][0] == pytest.approx(whole[2], abs=1e-6)
    maps = [method.importance(lens.trace(pixels), torch.full((3,), number)) for number in range(zoo.CLASSES)]
    for image in range(3):
        own = int(target[image])
        others = [spearmanr(maps[own][image], maps[k][image]).statistic for k in range(zoo.CLASSES) if k != own]
        assert min(abs(whole[image] - one) for one in others) < 1e-6
    (blind,) = parse_methods("rollout")
    assert ClassSensitivity().measure(seen(lens, pixels, target), blind)["correlation"] == pytest.approx(np.ones(3))
    (score,) = ClassSensitivity().scores(xr.Dataset({"correlation": ("image", [1.0, 0.5, np.nan])}), Statistics())
    assert (score.value, score.images) == (0.25, 2)


def test_completeness() -> None:
    lens, pixels, target = lens_of(), zoo.pixels(NAME, 3), zoo.targets(3)
    (method,) = parse_methods("logit_attribution")
    found = Completeness().measure(seen(lens, pixels, target), method)["missing"]
    assert found.shape == (3,)
    assert (found < 1e-9).all()
    assert Completeness().takes(method)
    assert not Completeness().takes(parse_methods("chefer")[0])
    batch = seen(lens, pixels, target)
    batch.trace.recording._kept["mlp_out"][1][:] *= 1.01
    assert (Completeness().measure(batch, method)["missing"] > 1e-4).all()
