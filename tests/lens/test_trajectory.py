"""The decision trajectory: the model's own end on the states of every depth, computed by loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import classlens
from classlens import Lens, TunedLens
from tests import literal, zoo
from tests.lens.test_tuned_lens import drawn, translated
from tests.models.library_models import MODELS
from tests.refusals import refused

Numbers = np.ndarray[Any, Any]


def _pooled_logits(model: Any, name: str, state: Tensor) -> Tensor:
    """timm's own end of the model, on the states after any block."""
    with torch.no_grad():
        x = model.norm(state)
        variant = zoo.VARIANTS[name]
        x = x[:, 0] if len(variant.pooled) == 1 else x[:, list(variant.pooled)].mean(dim=1)
        logits: Tensor = model.head(model.fc_norm(x))
    return logits


def _assert_describes(trajectory: xr.Dataset, logits: Numbers, target: list[int], tolerance: float) -> None:
    """Every variable, image by image and depth by depth, from the logits ``[image, depth, category]``."""
    k = trajectory.sizes["place"]
    for image, depths in enumerate(logits):
        final = np.argsort(-depths[-1], kind="stable")[:k]
        for depth, row in enumerate(depths):
            part = trajectory.isel(image=image, depth=depth)
            order = np.argsort(-row, kind="stable")[:k]
            shares = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
            c = target[image]
            expected = {
                "top_logit": row[order],
                "final_logit": row[final],
                "logit": row[c],
                "logsumexp": np.log(np.exp(row - row.max()).sum()) + row.max(),
                "log_probability": np.log(shares[c]),
                "entropy": -(shares * np.log(shares)).sum(),
                "margin": row[c] - np.delete(row, c).max(),
            }
            np.testing.assert_array_equal(part["top"], order)
            assert part["rank"] == (row > row[c]).sum()
            for key, value in expected.items():
                np.testing.assert_allclose(part[key], value, rtol=0, atol=tolerance, err_msg=key)


@pytest.mark.parametrize("name", zoo.VARIANTS)
def test_each_depth_is_the_model_s_own_end_on_its_states(name: str) -> None:
    model, target = zoo.build(name), zoo.targets()
    states = literal.states(model, zoo.pixels(name))
    logits = [_pooled_logits(model, name, state) for state in (*states["embed"], *states["resid_post"])]
    trace = classlens.load(model).trace(zoo.pixels(name))
    trajectory = trace.trajectory(target, 3)
    # Two orders of summing float64 numbers of order 10.
    _assert_describes(trajectory, torch.stack(logits, dim=1).numpy(), target.tolist(), 1e-11)
    assert dict(trajectory.sizes) == {"image": 3, "depth": 4, "place": 3}
    assert trajectory["block"].values.tolist() == [-1, 0, 1, 2]
    np.testing.assert_array_equal(trajectory["logit"][:, -1], [trace.model_logits[i, c] for i, c in enumerate(target)])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_models_of_every_library_end_in_their_own_logits(name: str) -> None:
    """The projection of the last states, which the trajectory replaces by the model's logits, is theirs (law 2)."""
    lens: Lens = classlens.load(MODELS[name].make())
    pixels = torch.randn(2, lens.view.channels, *lens.view.input_size, generator=torch.Generator().manual_seed(1))
    trace = lens.trace(pixels)
    trajectory = trace.trajectory(k=2)
    np.testing.assert_array_equal(trajectory["top"][:, -1, 0], trace.predictions)
    np.testing.assert_array_equal(trajectory["top_logit"][:, -1, 0], trace.model_logits.max("category"))
    for block in range(len(lens.view.blocks) - 1):
        logits = lens.view.logits(trace.recording.state("resid_post", block, slice(0, 2)))
        # float32 products of other shapes, of logits up to some tens.
        np.testing.assert_allclose(trajectory["top_logit"][:, block + 1, 0], logits.amax(dim=1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["cls", "avg_two_norms", "avg_norm_before_pool"])
def test_a_tuned_lens_translates_every_depth_but_the_ends(name: str) -> None:
    model, tuned_lens, target = zoo.build(name), drawn(torch.float64), zoo.targets()
    states = literal.states(model, zoo.pixels(name))
    logits = [_pooled_logits(model, name, states["embed"][0])]
    for block, state in enumerate(states["resid_post"][:-1]):
        logits.append(_pooled_logits(model, name, translated(tuned_lens, "resid_post", block, state)))
    logits.append(_pooled_logits(model, name, states["resid_post"][-1]))
    lens = classlens.load(model)
    for trajectory in (
        lens.trace(zoo.pixels(name)).trajectory(target, decoder=tuned_lens),
        lens.with_tuned_lens(tuned_lens).trace(zoo.pixels(name)).trajectory(target),
        lens.with_tuned_lens(TunedLens.identity(lens.view))
        .trace(zoo.pixels(name))
        .trajectory(target, decoder=tuned_lens),
    ):
        _assert_describes(trajectory, torch.stack(logits, dim=1).numpy(), target.tolist(), 1e-11)


@pytest.mark.parametrize("name", ["cls", "avg"])
def test_removed_tokens_are_not_pooled(name: str) -> None:
    """At the last depth the model leaves them out; the same tokens are left out of every other."""
    model, lens = zoo.build(name), classlens.load(zoo.build(name))
    kept = torch.ones(3, lens.view.tokens((16, 16)).count, dtype=torch.bool)
    kept[0, -1] = kept[2, -3:-1] = False
    with lens.edit(classlens.KeepTokens(kept)):
        trace = lens.trace(zoo.pixels(name))
    trajectory = trace.trajectory(0)
    pooled = slice(0, 1) if name == "cls" else slice(None)
    for block in range(2):
        states = trace.recording.state("resid_post", block, slice(0, 3))[:, pooled]
        for image, mask in enumerate(kept[:, pooled]):
            with torch.no_grad():
                mean = model.norm(states[image][mask]).mean(dim=0) if name == "cls" else states[image][mask].mean(dim=0)
                expected = model.head(model.fc_norm(mean))[0]
            np.testing.assert_allclose(trajectory["logit"][image, block + 1], expected, rtol=0, atol=1e-11)


def test_many_images_and_classes_come_in_groups_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from classlens.explain import class_logits

    whole = classlens.load(zoo.build("cls")).trace(zoo.pixels("cls", 7)).trajectory("predicted")
    monkeypatch.setattr(class_logits, "_SCRATCH", 2 * 5 * zoo.CLASSES)
    parts = classlens.load(zoo.build("cls")).trace(zoo.pixels("cls", 7)).trajectory("predicted")
    xr.testing.assert_allclose(parts, whole, rtol=1e-12)


def test_k_takes_all_classes_of_a_small_model_and_one_still_has_a_margin() -> None:
    trace = classlens.load(zoo.build("cls")).trace(zoo.pixels("cls"))
    every, single = trace.trajectory(k=500), trace.trajectory(k=1)
    assert every.sizes["place"] == zoo.CLASSES
    assert (np.sort(every["top"], axis=-1) == np.arange(zoo.CLASSES)).all()
    assert single.sizes["place"] == 1
    xr.testing.assert_equal(single["margin"], every["margin"])
    assert every["class_name"].dims == ("image", "depth", "place")


def test_refusals() -> None:
    lens = classlens.load(zoo.build("cls"))
    trace = lens.trace(zoo.pixels("cls"))
    short = TunedLens(torch.eye(24).repeat(2, 1, 1), torch.zeros(2, 24))
    refused(lambda: trace.trajectory(decoder=short), "blocks")
    refused(lambda: trace.trajectory(k=0), "k")
