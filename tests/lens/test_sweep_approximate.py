"""Approximate causal sweeps: gradients by hand on the model itself, a linear model, completeness, and agreement."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import spearmanr
from torch import Tensor, nn

import classlens
from classlens import Lens
from tests import zoo
from tests.lens.test_problem_types import labels, number
from tests.lens.test_sweep import lens_of, pair
from tests.refusals import refused

KINDS: dict[str, dict[str, Any]] = {
    "sublayers": {},
    "heads": {},
    "units": {},
    "tokens": {},
    "tokens resid_post": {"site": "resid_post"},
    "tokens attn_out": {"site": "attn_out"},
    "tokens mlp_out": {"site": "mlp_out"},
}


def log_odds(logits: Tensor, c: int) -> Tensor:
    p = logits.softmax(dim=0)[c]
    return (p / (1 - p)).log()


def activations(vit: Any, x: Tensor, c: int, *, gradients: bool) -> dict[str, list[Tensor]]:
    """Activations in the blocks of a timm model for one image, or the gradients of the log odds there."""
    kept: dict[str, list[Tensor]] = {"resid_pre": [], "resid_post": [], "heads": [], "attn": [], "units": [], "mlp": []}
    handles = []

    def keep(name: str, tensor: Tensor) -> None:
        if gradients:
            tensor.retain_grad()
        kept[name].append(tensor)

    def enters(module: nn.Module, name: str) -> None:
        handles.append(module.register_forward_pre_hook(lambda _, args: keep(name, args[0])))

    def leaves(module: nn.Module, name: str) -> None:
        handles.append(module.register_forward_hook(lambda _, __, output: keep(name, output)))

    for block in vit.blocks:
        enters(block, "resid_pre")
        enters(block.attn.proj, "heads")
        leaves(block.ls1, "attn")
        enters(block.mlp.fc2, "units")
        leaves(block.ls2, "mlp")
        leaves(block, "resid_post")
    log_odds(vit(x[None])[0], c).backward()
    for handle in handles:
        handle.remove()
    vit.zero_grad()
    return {name: [x.grad[0] if gradients else x.detach()[0] for x in found] for name, found in kept.items()}


def by_hand(vit: Any, base: Tensor, source: Tensor, c: int, steps: int) -> dict[str, Tensor]:
    """Changes ``[block, part]`` of every kind of part, for one image."""
    path = [base] if steps == 1 else [base + (j + 0.5) / steps * (source - base) for j in range(steps)]
    slopes = [activations(vit, x, c, gradients=True) for x in path]
    own, theirs = (activations(vit, x, c, gradients=False) for x in (base, source))
    products = {
        name: torch.stack([
            sum(slope[name][block] for slope in slopes) / steps * (theirs[name][block] - own[name][block])
            for block in range(3)
        ])
        for name in own
    }  # fmt: skip
    return {
        "sublayers": torch.stack([products["attn"].sum(dim=(1, 2)), products["mlp"].sum(dim=(1, 2))], dim=1),
        "heads": products["heads"].sum(dim=1).unflatten(1, (3, 8)).sum(dim=2),
        "units": products["units"].sum(dim=1),
        "tokens": products["resid_pre"].sum(dim=2),
        "tokens resid_post": products["resid_post"].sum(dim=2),
        "tokens attn_out": products["attn"].sum(dim=2),
        "tokens mlp_out": products["mlp"].sum(dim=2),
    }


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_gradients_by_hand(direction: Any, steps: int) -> None:
    """Each image alone, with its own target, by hooks on the modules of timm."""
    vit: Any = zoo.build("cls_layer_scale")
    lens, (clean, corrupt), targets = classlens.load(vit), pair(), [4, 0, 7]
    base, source = (corrupt, clean) if direction == "denoise" else (clean, corrupt)
    expected = [by_hand(vit, x, y, c, steps) for x, y, c in zip(base, source, targets, strict=True)]
    with torch.no_grad():
        of_base, of_source = (
            np.array([float(log_odds(vit(x[None])[0], c)) for x, c in zip(images, targets, strict=True)])
            for images in (base, source)
        )
    for kind, options in KINDS.items():
        given: dict[str, Any] = {"target": targets, "direction": direction, **options}
        result = lens.sweep(clean, corrupt, kind.split()[0], **given, approximate=True, steps=steps, batch_size=2)
        changes = torch.stack([each[kind] for each in expected]).numpy()
        np.testing.assert_allclose(result.patched, of_base[:, None, None] + changes, rtol=0, atol=1e-10)
        effects = changes / (of_source - of_base)[:, None, None]
        np.testing.assert_allclose(result.effect, effects, rtol=0, atol=1e-10 * float(np.abs(effects).max()))
        if kind in ("heads", "tokens resid_post"):
            exact = lens.sweep(clean, corrupt, kind.split()[0], **given)
            assert set(exact) == set(result)
            assert exact.coords.to_dataset().equals(result.coords.to_dataset())
            xr.testing.assert_allclose(exact[["clean", "corrupt"]], result[["clean", "corrupt"]], rtol=0, atol=1e-10)
            assert result.attrs == {**exact.attrs, "approximate": True, "steps": steps}


def linear() -> Any:
    """A model whose logits are linear in all that passes: attention is the same everywhere, nothing is normalized."""
    vit: Any = zoo.build("cls_no_final_norm")
    with torch.no_grad():
        for block in vit.blocks:
            block.norm1, block.norm2, block.mlp.act = (nn.Identity() for _ in range(3))
            block.attn.qkv.weight[:48] = 0
            block.attn.qkv.bias[:48] = 0
    return vit


@pytest.mark.parametrize("steps", [1, 5])
def test_nothing_is_approximated_in_a_linear_model(steps: int) -> None:
    lens, (clean, corrupt) = classlens.load(linear()), pair("cls_no_final_norm")
    for kind, options in KINDS.items():
        given: dict[str, Any] = {"metric": "logit_difference", "target": [4, 0, 7], "against": 2, **options}
        exact = lens.sweep(clean, corrupt, kind.split()[0], **given)
        result = lens.sweep(clean, corrupt, kind.split()[0], **given, approximate=True, steps=steps)
        assert float(np.abs(exact.patched - exact.corrupt).max()) > 0.1
        np.testing.assert_allclose(result.patched, exact.patched, rtol=0, atol=1e-10)


@pytest.mark.parametrize("metric", ["log_odds", "probability"])
def test_integrated_gradients_are_complete(metric: str) -> None:
    """Estimates of all tokens that enter block 0 add up to the way from one image to the other.

    Patches are embedded linearly, so that a straight way of pixels is one of these tokens, too.
    """
    lens, (clean, corrupt) = lens_of(), pair()
    remainders = {}
    for steps in (1, 64, 128):
        result = lens.sweep(
            clean, corrupt, "tokens", metric=metric, target=3, blocks=0, approximate=True, steps=steps, batch_size=2
        )
        total, way = (result.patched - result.corrupt).sum(("block", "token")), result.clean - result.corrupt
        remainders[steps] = (total - way).values / float(np.abs(way).max())
    assert float(np.abs(remainders[1]).max()) > 0.1
    # The error of the midpoint rule is c / steps² + O(1 / steps⁴): a quarter with twice the steps, and known from both.
    np.testing.assert_allclose(remainders[64], 4 * remainders[128], rtol=0.03)
    np.testing.assert_allclose(4 * remainders[128] - remainders[64], 0, rtol=0, atol=2e-6)


def test_agreement() -> None:
    lens, (clean, corrupt) = lens_of(), pair()
    exact = lens.sweep(clean, corrupt, target=3)
    for steps in (1, 8):
        estimate = lens.sweep(clean, corrupt, target=3, approximate=True, steps=steps)
        agreement = classlens.sweep_agreement(exact, estimate)
        assert agreement.dims == ("image",)
        for image in range(3):
            values = [each.effect[image].values.ravel() for each in (exact, estimate)]
            assert float(agreement[image]) == pytest.approx(spearmanr(*values).statistic, abs=1e-12)
        assert agreement.image.values.tolist() == exact.image.values.tolist()
        assert agreement.target.values.tolist() == [3, 3, 3]
        assert float(agreement.min()) > 0.2
    np.testing.assert_allclose(classlens.sweep_agreement(exact, exact), 1)
    np.testing.assert_allclose(classlens.sweep_agreement(exact, exact.transpose()), 1)
    same = lens.sweep(clean, clean, target=3, approximate=True)
    assert bool(classlens.sweep_agreement(same, same).isnull().all())


def test_patching_nothing_has_no_effect_to_share() -> None:
    lens, (clean, _) = lens_of(), pair()
    result = lens.sweep(clean, clean, "sublayers", metric="logit", target=0, approximate=True)
    np.testing.assert_allclose(result.patched, result.clean.values[:, None, None] + np.zeros((3, 3, 2)), atol=1e-11)
    assert bool(result.effect.isnull().all())


def test_outputs_that_are_no_classes() -> None:
    clean, corrupt = pair("cls", 2)
    odds = labels().sweep(clean, corrupt, target=0, blocks=1, approximate=True)
    logit = labels().sweep(clean, corrupt, target=0, blocks=1, metric="logit", approximate=True)
    np.testing.assert_allclose(odds.patched, logit.patched, rtol=0, atol=1e-12)
    probability = labels().sweep(clean, corrupt, target=0, blocks=1, metric="probability", approximate=True)
    p = 1 / (1 + np.exp(-logit.corrupt))
    np.testing.assert_allclose(probability.patched - p, p * (1 - p) * (logit.patched - logit.corrupt), atol=1e-12)
    assert number().sweep(clean, corrupt, target=0, metric="logit", approximate=True).effect.shape == (2, 3, 3)


def test_results_can_be_saved(tmp_path: Path) -> None:
    pytest.importorskip("h5netcdf")
    result = lens_of().sweep(*pair(), target=0, approximate=True, steps=2)
    result.to_netcdf(tmp_path / "sweep.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "sweep.nc", engine="h5netcdf") as saved:
        assert saved.equals(result)
        assert saved.attrs == result.attrs
        np.testing.assert_allclose(classlens.sweep_agreement(result, saved), 1)


class Steep(torch.autograd.Function):
    """Passes a tensor on; its gradient is infinite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return torch.full_like(gradients[0], torch.inf)


@pytest.mark.wrong_types
def test_refusals() -> None:
    lens, (clean, corrupt) = lens_of(), pair()
    sweep: Any = lens.sweep
    refused(lambda: sweep(clean, corrupt, metric="rank", approximate=True), "metric 'rank' counts", "give one of log_")
    refused(lambda: sweep(clean, corrupt, steps=5), "steps=5 was given without approximate=True")
    refused(lambda: sweep(clean, corrupt, approximate=True, steps=0), "steps 0", "at least 1")
    refused(lambda: sweep(clean, corrupt, approximate=3), "approximate")
    refused(lambda: sweep(clean, torch.full((1, 3, 16, 16), float("nan")), approximate=True), "logits are not finite")
    refused(lambda: number().sweep(clean, corrupt, target=0, approximate=True), "metric 'log_odds' has no meaning")
    with_infinite = classlens.load(zoo.build("cls"))
    with_infinite.sweep(clean, corrupt, target=0, approximate=True)
    with_infinite.view.module.blocks[2].register_forward_hook(lambda _, __, x: Steep.apply(x))
    refused(
        lambda: with_infinite.sweep(clean, corrupt, metric="logit", target=0, approximate=True),
        "gradients are not finite for the image 'image 0'",
    )


@pytest.mark.wrong_types
def test_refusals_of_agreement() -> None:
    lens, (clean, corrupt) = lens_of(), pair()
    exact = lens.sweep(clean, corrupt, target=3)
    agreement: Any = classlens.sweep_agreement
    refused(lambda: agreement(exact, 3), "approximate 3")
    refused(lambda: agreement(xr.Dataset(), exact), "exact is no result of Lens.sweep")
    refused(lambda: agreement(exact, exact.isel(image=0)), "approximate is no result of Lens.sweep")

    def other(**options: Any) -> xr.Dataset:
        given: dict[str, Any] = {"target": 3, "approximate": True, **options}
        return lens.sweep(clean, corrupt, **given)

    for name, sweep in {
        "over": other(over="units"),
        "metric": other(metric="logit"),
        "direction": other(direction="noise"),
        "block": other(blocks=[0, 2]),
        "head": other(parts=[0, 1]),
        "target": other(target=4),
        "image": other().isel(image=[0, 1]),
    }.items():
        refused(partial(agreement, exact, sweep), f"exact and approximate differ in {name}:")


def test_lens_is_as_before() -> None:
    vit: Any = zoo.build("cls_registers")
    lens: Lens = classlens.load(vit)
    clean, corrupt = pair()
    before = zoo.snapshot(vit)
    lens.sweep(clean, corrupt, "units", target=0, approximate=True, steps=2)
    assert zoo.snapshot(vit) == before
    assert all(parameter.grad is None and parameter.requires_grad for parameter in vit.parameters())
    assert not clean.requires_grad
