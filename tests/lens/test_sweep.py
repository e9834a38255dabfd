"""Causal sweeps as labeled arrays: metrics by hand, directions, and a model in which direct and total effect agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import classlens
from classlens import Corruption, Lens, Patch
from tests import zoo
from tests.lens.test_problem_types import binary, labels, number
from tests.refusals import refused


def lens_of(name: str = "cls_registers") -> Lens:
    return classlens.load(zoo.build(name))


def pair(name: str = "cls_registers", images: int = 3) -> tuple[Tensor, Tensor]:
    return zoo.pixels(name, images), zoo.pixels(name, images, seed=5)


def patched_logits(lens: Lens, x: Tensor, source: Tensor, block: int, head: int) -> np.ndarray[Any, Any]:
    with lens.edit(Patch("heads", source, blocks=[block], heads=[head])), torch.no_grad():
        logits: Tensor = lens.view.run(x)
    return logits.numpy()


def log_odds(z: Any, c: int, _: int) -> float:
    p = np.exp(z[c]) / np.exp(z).sum()
    return float(np.log(p / (1 - p)))


METRICS: dict[str, Callable[[Any, int, int], float]] = {
    "log_odds": log_odds,
    "logit_difference": lambda z, c, rival: z[c] - z[rival],
    "logit": lambda z, c, _: z[c],
    "probability": lambda z, c, _: np.exp(z[c]) / np.exp(z).sum(),
    "rank": lambda z, c, _: sum(other > z[c] for other in z),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_metrics_of_patched_images(metric: str, direction: Any) -> None:
    """Each image with its own target; the effect is the way from the image that runs to the other one."""
    lens, (clean, corrupt) = lens_of(), pair()
    targets, rivals = [4, 0, 7], [1, 2, 3]
    rival = {"against": rivals} if metric == "logit_difference" else {}
    result = lens.sweep(clean, corrupt, metric=metric, target=targets, direction=direction, batch_size=7, **rival)  # type: ignore[arg-type]
    assert result.effect.dims == ("image", "block", "head")
    base, source = (corrupt, clean) if direction == "denoise" else (clean, corrupt)
    with torch.no_grad():
        ends = [lens.view.run(x).numpy() for x in (base, source, clean, corrupt)]
    value = METRICS[metric]
    for block, head in ((0, 0), (1, 2), (2, 1)):
        logits = patched_logits(lens, base, source, block, head)
        for image, (c, other) in enumerate(zip(targets, rivals, strict=True)):
            of_base, of_source, of_clean, of_corrupt = (value(z[image], c, other) for z in ends)
            found = result.isel(image=image)
            expected = value(logits[image], c, other)
            np.testing.assert_allclose(found.patched.sel(block=block, head=head), expected, rtol=0, atol=1e-9)
            np.testing.assert_allclose([found.clean, found.corrupt], [of_clean, of_corrupt], rtol=0, atol=1e-9)
            if of_base != of_source:
                effect = (expected - of_base) / (of_source - of_base)
                np.testing.assert_allclose(found.effect.sel(block=block, head=head), effect, rtol=0, atol=1e-9)
            else:
                assert bool(found.effect.isnull().all())


def test_coordinates() -> None:
    lens, (x, y) = lens_of(), pair(images=40)
    with torch.no_grad():
        of_x, of_y = (lens.view.run(each).argmax(dim=1) for each in (x, y))
    differ = (of_x != of_y).nonzero()[:2, 0]
    clean, corrupt, of_clean, of_corrupt = x[differ], y[differ], of_x[differ].tolist(), of_y[differ].tolist()
    result = lens.sweep(
        clean,
        corrupt,
        "tokens",
        metric="logit_difference",
        target="predicted",
        against="predicted",
        site="resid_post",
        blocks=[2, 0],
        parts="image",
    )
    assert result.attrs == {
        "over": "tokens",
        "metric": "logit_difference",
        "direction": "denoise",
        "site": "resid_post",
    }
    assert result.target.values.tolist() == of_clean
    assert result.against.values.tolist() == of_corrupt
    assert result.block.values.tolist() == [2, 0]
    assert result.token.values.tolist() == [3, 4, 5, 6]
    assert result.token_kind.values.tolist() == ["image"] * 4
    assert (result.row.values.tolist(), result.column.values.tolist()) == ([0, 0, 1, 1], [0, 1, 0, 1])
    assert result.corrupt_image.values.tolist() == ["image 0", "image 1"]
    # After the last block the head reads [CLS] alone.
    np.testing.assert_allclose(result.effect.sel(block=2), 0, rtol=0, atol=1e-12)
    every = lens.sweep(clean, corrupt, "tokens", metric="logit", site="resid_post", blocks=2)
    np.testing.assert_allclose(every.effect.sel(block=2, token=0), 1, rtol=0, atol=1e-12)
    units = lens.sweep(clean, corrupt[:1], "units", metric="logit", blocks=1, parts=[5, 3])
    assert dict(units.effect.sizes) == {"image": 2, "block": 1, "unit": 2}
    assert units.unit.values.tolist() == [5, 3]
    both = lens.sweep(clean, corrupt[:1].expand(2, -1, -1, -1), "units", metric="logit", blocks=1, parts=[3])
    np.testing.assert_allclose(units.patched.sel(unit=[3]), both.patched, rtol=0, atol=1e-12)
    mlp = lens.sweep(clean, corrupt, "sublayers", metric="logit", parts="mlp")
    assert mlp.sublayer.values.tolist() == ["mlp"]


def test_a_corruption_makes_the_corrupt_images() -> None:
    lens, (clean, _) = lens_of(), pair()
    made = Corruption("noise", amount=0.5, seed=3)
    result = lens.sweep(clean, made, metric="logit", target=1, blocks=0)
    other = lens.sweep(clean, made(clean), metric="logit", target=1, blocks=0)
    assert result.corrupt_image.values.tolist() == ["noise"] * 3
    assert result.drop_vars("corrupt_image").equals(other.drop_vars("corrupt_image"))


def test_patching_nothing_has_no_effect_to_share() -> None:
    lens, (clean, _) = lens_of(), pair()
    result = lens.sweep(clean, clean, "sublayers", metric="logit", target=0)
    np.testing.assert_allclose(result.patched, result.clean.values[:, None, None] + np.zeros((3, 3, 2)), atol=1e-11)
    assert bool(result.effect.isnull().all())


def test_under_an_edit() -> None:
    lens, (clean, corrupt) = lens_of(), pair(images=2)
    edit = classlens.AblateHeads([0], blocks=1)
    with lens.edit(edit), torch.no_grad():
        result = lens.sweep(clean, corrupt, metric="logit", target=2, blocks=[1, 2])
        # The part that the edit ablates is the same in both images.
        np.testing.assert_allclose(result.effect.sel(block=1, head=0), 0, rtol=0, atol=1e-11)
        np.testing.assert_allclose(result.corrupt, lens.view.run(corrupt)[:, 2], rtol=0, atol=1e-11)
        expected = patched_logits(lens, corrupt, clean, 2, 1)[:, 2]
    np.testing.assert_allclose(result.patched.sel(block=2, head=1), expected, rtol=0, atol=1e-11)


def unread(vit: Any, kept: int) -> Any:
    """The model with residual streams of which blocks read only the first channels, and write only the others."""
    with torch.no_grad():
        for block in vit.blocks:
            for norm, reads, writes in (
                ("norm1", block.attn.qkv, block.attn.proj),
                ("norm2", block.mlp.fc1, block.mlp.fc2),
            ):
                setattr(block, norm, nn.Identity())
                reads.weight[:, kept:] = 0
                writes.weight[:kept] = 0
                writes.bias[:kept] = 0
    return vit


def test_direct_and_total_effect_agree_where_nothing_reads_what_heads_write() -> None:
    vit = unread(zoo.build("cls_no_final_norm"), 12)
    lens = classlens.load(vit)
    clean, corrupt = pair("cls_no_final_norm")
    target = [4, 0, 7]
    result = lens.sweep(clean, corrupt, metric="logit", target=target)
    direct = [lens.trace(x).attribution(target).attention for x in (clean, corrupt)]
    expected = direct[0].values - direct[1].values
    assert float(np.abs(expected).min()) > 1e-4
    np.testing.assert_allclose(result.patched - result.corrupt, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(result.effect, expected / (result.clean - result.corrupt).values[:, None, None])
    # In the ordinary model, later blocks do read it.
    other = classlens.load(zoo.build("cls_no_final_norm"))
    result = other.sweep(clean, corrupt, metric="logit", target=target)
    direct = [other.trace(x).attribution(target).attention for x in (clean, corrupt)]
    assert float(np.abs((result.patched - result.corrupt).values - (direct[0] - direct[1]).values).max()) > 0.01


def test_outputs_that_are_no_classes() -> None:
    clean, corrupt = pair("cls", 2)
    refused(lambda: number().sweep(clean, corrupt, target=0), "metric 'log_odds' has no meaning", "give one of logit")
    refused(lambda: labels().sweep(clean, corrupt, metric="rank", target=0), "labels with a sigmoid each")
    for lens, target in ((labels(), 0), (binary(), 1)):
        odds = lens.sweep(clean, corrupt, target=target, blocks=1)
        logit = lens.sweep(clean, corrupt, target=target, blocks=1, metric="logit")
        probability = lens.sweep(clean, corrupt, target=target, blocks=1, metric="probability")
        np.testing.assert_allclose(odds.patched, logit.patched, rtol=0, atol=1e-12)
        np.testing.assert_allclose(probability.patched, 1 / (1 + np.exp(-logit.patched)), rtol=0, atol=1e-12)
    assert number().sweep(clean, corrupt, target=0, metric="logit").effect.shape == (2, 3, 3)


@pytest.mark.wrong_types
def test_refusals() -> None:
    lens, (clean, corrupt) = lens_of(), pair()
    sweep: Any = lens.sweep
    refused(lambda: sweep(clean, corrupt[:2]), "corrupt images of shape [2, 3, 16, 16]", "one for each")
    refused(lambda: sweep(clean, corrupt, "haeds"), "over 'haeds' is not known; did you mean 'heads'?")
    refused(lambda: sweep(clean, corrupt, metric="odds"), "metric 'odds' is not known")
    refused(lambda: sweep(clean, corrupt, metric="logit_difference"), "without against=")
    refused(lambda: sweep(clean, corrupt, against=2), "metric 'log_odds' was given with against=")
    refused(
        lambda: sweep(clean, corrupt, metric="logit_difference", target=2, against=[1, 2, 3]),
        "target and against are both 'class 2' for image 'image 1'",
    )
    refused(lambda: sweep(clean, corrupt, site="resid_post"), "a site goes with over='tokens'")
    refused(lambda: sweep(clean, corrupt, "tokens", site="resid_mid"), "site 'resid_mid' is not known")
    refused(lambda: sweep(clean, corrupt, direction="both"), "direction 'both' is not known")
    refused(lambda: sweep(clean, corrupt, blocks=9), "block 9 does not exist")
    refused(lambda: sweep(clean, corrupt, parts=[3]), "head 3 does not exist")
    refused(lambda: sweep(clean, corrupt, "units", parts=99), "unit 99 does not exist")
    refused(lambda: sweep(clean, corrupt, "tokens", parts="cat"), "no tokens called 'cat'")
    refused(lambda: sweep(clean, corrupt, "sublayers", parts=["attn", "lp"]), "parts: sublayer 'lp' is not known")
    refused(
        lambda: sweep(clean, torch.full((1, 3, 16, 16), float("nan"))), "not finite for its corrupt image", "image 0"
    )
    refused(lambda: sweep(clean, 3), "corrupt 3 cannot be used", "a Corruption, KeepTokens, or Means")
