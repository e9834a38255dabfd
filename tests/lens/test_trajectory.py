"""The decision trajectory: the model's own end on the states of every depth, computed by loops."""

from __future__ import annotations

from pathlib import Path
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
    monkeypatch.setattr(class_logits, "logits_at_once", lambda _: 2 * 5 * zoo.CLASSES)
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


GROUPS = {0: "a", 3: "b", 4: "a", 7: "c", 8: "b", 9: "b"}
"""Groups of eleven classes: 7 is a group of its own, and five classes have none."""


def _of_groups(logits: Numbers) -> Numbers:
    """Logs of mean probabilities by loops; the groups in the order of their first classes."""
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    members = [[0, 4], [3, 8, 9], [7]]
    means = np.stack([sum(shares[..., one] for one in of) / len(of) for of in members], axis=-1)
    return np.asarray(np.log(means / means.sum(axis=-1, keepdims=True)))


@pytest.mark.parametrize("name", ["cls", "avg_two_norms"])
def test_groups_stand_in_the_place_of_classes(name: str, tmp_path: Path) -> None:
    model, target = zoo.build(name), torch.tensor([4, 7, 8])
    states = literal.states(model, zoo.pixels(name))
    logits = torch.stack([_pooled_logits(model, name, state) for state in (*states["embed"], *states["resid_post"])], 1)
    trace = classlens.load(model).trace(zoo.pixels(name))
    found = trace.trajectory(target, groups=GROUPS)
    expected = _of_groups(logits.numpy())
    # Logits of groups are logs of mean exponentials: those of mean probabilities plus the logsumexp of all classes.
    lifted = expected + found["logsumexp"].values[..., None]
    _assert_describes(found, lifted, [0, 2, 1], 1e-11)
    sums = np.exp(logits.numpy())[..., [0, 4]].mean(axis=-1)
    np.testing.assert_allclose(np.exp(found["logit"][0]), sums[0], rtol=1e-11)
    assert found.sizes["place"] == 3
    assert found["target_name"].values.tolist() == ["a", "c", "b"]
    np.testing.assert_array_equal(found["class_name"], np.array(["a", "b", "c"])[found["top"].values])
    (tmp_path / "g.tsv").write_text("".join(f"{key}\t{value}\n" for key, value in reversed(GROUPS.items())))
    xr.testing.assert_identical(trace.trajectory(target, groups=tmp_path / "g.tsv"), found)
    # A class that is a group of its own, beside the group of all others.
    own = trace.trajectory(3, groups={index: str(index) for index in range(zoo.CLASSES)})
    xr.testing.assert_allclose(own, trace.trajectory(3).assign_coords(own.coords), rtol=1e-11)


def test_an_image_whose_predicted_class_has_no_group() -> None:
    trace = classlens.load(zoo.build("cls")).trace(zoo.pixels("cls", 6))
    predicted = trace.predictions.values
    inside = int(predicted[0])
    outside = np.flatnonzero(predicted != inside)
    assert len(outside), "the images are of two classes at least"
    groups = {inside: "in", next(one for one in range(zoo.CLASSES) if one not in predicted): "rest"}
    found = trace.trajectory(groups=groups, against=inside)
    for name in ("logit", "log_probability", "margin", "difference"):
        assert (np.isnan(found[name].values).all(axis=1) == (predicted != inside)).all(), name
    assert (np.isnan(found["time_to_decision"]) == (predicted != inside)).all()
    assert (found["rank"][outside] == -1).all()
    assert (found["rank"][predicted == inside] >= 0).all()
    assert set(found["target_name"].values[outside]) == {""}
    assert np.isfinite(found["entropy"]).all()
    missing = int(predicted[outside[0]])
    refused(lambda: trace.trajectory(missing, groups=groups), f"target 'class {missing}'", "no group")
    refused(lambda: trace.trajectory(against=missing, groups=groups), f"against 'class {missing}'", "no group")
    assert (trace.trajectory(predicted, groups=groups)["rank"] == found["rank"]).all()


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_two_classes_compete(groups: dict[int | str, str] | None) -> None:
    model, target, against = zoo.build("cls"), [4, 7, 8], [3, 0, 0]
    states = literal.states(model, zoo.pixels("cls"))
    logits = torch.stack(
        [_pooled_logits(model, "cls", s) for s in (*states["embed"], *states["resid_post"])], 1
    ).numpy()
    trace = classlens.load(model).trace(zoo.pixels("cls"))
    found = trace.trajectory(target, against=against, groups=groups)
    shares = np.exp(_of_groups(logits)) if groups else np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    pairs = [(0, 1), (2, 0), (1, 0)] if groups else list(zip(target, against, strict=True))
    for image, (a, b) in enumerate(pairs):
        part = found.isel(image=image)
        d = [float(np.log(row[a]) - np.log(row[b])) for row in shares[image]]
        np.testing.assert_allclose(part["difference"], d, rtol=0, atol=1e-11)
        d = d[1:]  # the outputs of blocks
        never = [start for start in range(3) if all(value >= 0 for value in d[start:])]
        expected = {
            "area_for": sum(max(value, 0) for value in d),
            "area_against": sum(max(-value, 0) for value in d),
            "change_of_mind": min(0, d[-1]) - min(d),
            "time_to_decision": ((never[0] if never else 2) + 1) / 3,
        }
        for name, value in expected.items():
            np.testing.assert_allclose(part[name], value, rtol=0, atol=1e-11, err_msg=name)
    assert found["against"].values.tolist() == [b for _, b in pairs]
    plain = trace.trajectory(target, groups=groups)
    assert not {"difference", "area_for", "against"} & set(plain.variables)
    xr.testing.assert_identical(found[list(plain.data_vars)].drop_vars(["against", "against_name"]), plain)


def test_refusals() -> None:
    lens = classlens.load(zoo.build("cls"))
    trace = lens.trace(zoo.pixels("cls"))
    short = TunedLens(torch.eye(24).repeat(2, 1, 1), torch.zeros(2, 24))
    refused(lambda: trace.trajectory(decoder=short), "blocks")
    refused(lambda: trace.trajectory(k=0), "k")
    refused(lambda: trace.trajectory(against="cot"), "'cot'")
    refused(lambda: trace.trajectory(groups={"class 0": "a"}), "single group 'a'")
