"""A model with a tuned lens as decoder, against its translators applied by hand to the plain states."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import classlens
from classlens import Lens
from classlens.lens.tuned_lens import TunedLens, read_tuned_lens
from classlens.models.view import SITES, ModelView, Site
from tests import literal, zoo
from tests.explain.methods_twin import written_out
from tests.lens.test_readouts import _made as two_readouts
from tests.refusals import refused, unchecked

KINDS = ("cls", *zoo.KINDS)
WIDTH, BLOCKS = 24, 3
SUMS: tuple[Site, ...] = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")


def drawn(dtype: torch.dtype = torch.float32, seed: int = 4) -> TunedLens:
    """Near enough to the identity that logits stay of order 10, far enough to change every rank."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(BLOCKS, WIDTH, WIDTH, generator=generator, dtype=torch.float64) / WIDTH**0.5
    bias = torch.randn(BLOCKS, WIDTH, generator=generator, dtype=torch.float64)
    return TunedLens((torch.eye(WIDTH) + noise).to(dtype), bias.to(dtype))


def translated(tuned_lens: TunedLens, site: str, block: int, x: Tensor) -> Tensor:
    """What leaves block b passes translator b, what enters it translator b-1, the embeddings none."""
    number = -1 if site == "embed" else block - 1 if site == "resid_pre" else block
    if number < 0:
        return x
    weight, bias = tuned_lens.weight[number].to(x.dtype), tuned_lens.bias[number].to(x.dtype)
    return torch.stack([torch.stack([weight @ token + bias for token in image]) for image in x])


def by_hand(name: str, tuned_lens: TunedLens, site: str) -> Tensor:
    model = zoo.build(name)
    states = literal.states(model, zoo.pixels(name))[site]
    with torch.no_grad():
        return torch.stack(
            [literal.class_logits(model, translated(tuned_lens, site, block, x)) for block, x in enumerate(states)],
            dim=1,
        )


@pytest.mark.parametrize("name", KINDS)
def test_identity_translators_change_nothing(name: str) -> None:
    lens, pixels, target = classlens.load(zoo.build(name)), zoo.pixels(name), zoo.targets()
    tuned = lens.with_tuned_lens(TunedLens.identity(lens.view))
    plain, identity = lens.trace(pixels), tuned.trace(pixels)
    near: dict[str, Any] = {"rtol": 0, "atol": 1e-10}
    for site in SITES:
        np.testing.assert_allclose(identity.logits(site), plain.logits(site), **near)
        np.testing.assert_array_equal(identity.rank(site, target), plain.rank(site, target))
        np.testing.assert_array_equal(identity.top(site, 3), plain.top(site, 3))
    for sites in (SUMS, ("attn_out", "mlp_out", "resid_post")):
        for facts in (identity.facts(sites, target), tuned.facts(pixels, sites, target)):
            expected = plain.facts(sites, target)
            np.testing.assert_array_equal(facts["rank"], expected["rank"])
            np.testing.assert_array_equal(facts["top1"], expected["top1"])
            np.testing.assert_allclose(facts["logit"], expected["logit"], **near)
    for method in ("class_gradient", "class_rank", "legrad", "chefer", "logit_attribution"):
        np.testing.assert_allclose(
            identity.explain(target, method=method), plain.explain(target, method=method), err_msg=method, **near
        )
    for loss in ("logit", "cross_entropy"):
        np.testing.assert_allclose(
            identity.explain_every_class(loss=loss), plain.explain_every_class(loss=loss), **near
        )
    np.testing.assert_allclose(
        tuned.explain(pixels, target, method="class_gradient"),
        lens.explain(pixels, target, method="class_gradient"),
        **near,
    )


@pytest.mark.parametrize("name", KINDS)
def test_tokens_pass_the_translator_of_their_block(name: str) -> None:
    lens, pixels, target, tuned_lens = classlens.load(zoo.build(name)), zoo.pixels(name), zoo.targets(), drawn()
    tuned, untuned = lens.with_tuned_lens(tuned_lens), lens.trace(pixels)
    trace = tuned.trace(pixels)
    for site in SITES:
        expected = by_hand(name, tuned_lens, site).numpy()
        np.testing.assert_allclose(trace.logits(site), expected, rtol=0, atol=1e-10, err_msg=site)
        target_logits = np.stack([expected[image, ..., index] for image, index in enumerate(target.tolist())])
        rank = (expected > target_logits[..., None]).sum(axis=-1)
        for facts in (trace.facts(site, target), tuned.facts(pixels, site, target)):
            np.testing.assert_array_equal(facts["rank"].isel(site=0), rank)
            np.testing.assert_array_equal(facts["top1"].isel(site=0), expected.argmax(axis=-1))
            np.testing.assert_allclose(facts["logit"].isel(site=0), target_logits, rtol=0, atol=1e-10)
        np.testing.assert_array_equal(trace.rank(site, target), rank)
        top = trace.top(site, 1)
        np.testing.assert_array_equal(top.isel(place=0), expected.argmax(axis=-1))
        np.testing.assert_allclose(top.logit[..., 0], expected.max(axis=-1), rtol=0, atol=1e-10)
        plain = untuned.rank(site, target).values
        assert (plain[:, 0] == rank[:, 0]).all() if site in ("embed", "resid_pre") else (plain != rank).any()


@pytest.mark.parametrize("name", KINDS)
def test_sites_that_are_asked_for_together(name: str) -> None:
    """Sums of sublayer outputs have no products of their own without a tuned lens, and have with one."""
    lens, pixels, target = classlens.load(zoo.build(name)), zoo.pixels(name), zoo.targets()
    tuned = lens.with_tuned_lens(drawn())
    trace = tuned.trace(pixels)
    for facts in (trace.facts(SUMS, target), tuned.facts(pixels, SUMS, target, batch_size=2)):
        for site in SUMS:
            alone = trace.facts(site, target).isel(site=0)
            np.testing.assert_array_equal(facts["rank"].sel(site=site), alone["rank"])
            np.testing.assert_allclose(facts["logit"].sel(site=site), alone["logit"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["two heads", "split head"])
def test_models_of_two_readouts(kind: str) -> None:
    model, lens, _ = two_readouts(kind)
    tuned_lens, pixels = drawn(), zoo.pixels("cls")
    states = literal.states(model, pixels)
    trace = lens.with_tuned_lens(tuned_lens).trace(pixels)
    for site in SITES:
        x = torch.stack([translated(tuned_lens, site, block, state) for block, state in enumerate(states[site])], dim=1)
        with torch.no_grad():
            x = model.norm(x)
            if kind == "two heads":
                expected = model.head(x)
                expected[:, :, 1] = model.second(x[:, :, 1])
            else:
                expected = x @ model.both.weight[:, :WIDTH].T + model.both.bias
                expected[:, :, 1:] = x[:, :, 1:] @ model.both.weight[:, WIDTH:].T + model.both.bias
        np.testing.assert_allclose(trace.logits(site), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "loss"), [*((name, "cross_entropy") for name in KINDS), ("avg_two_norms", "logit")])
def test_the_class_gradient_is_autograd_s_through_the_translator(name: str, loss: Any) -> None:
    model, pixels, target, tuned_lens = zoo.build(name), zoo.pixels(name), zoo.targets(), drawn()
    variant = zoo.VARIANTS[name]
    prefix = len(variant.prefix)
    tuned = classlens.load(model).with_tuned_lens(tuned_lens)
    maps = tuned.trace(pixels).explain(target, loss=loss, method="class_gradient")
    np.testing.assert_allclose(
        tuned.explain(pixels, target, loss=loss, method="class_gradient"), maps, rtol=0, atol=1e-12
    )
    states = literal.states(model, pixels)["resid_pre"]
    for block, x in enumerate(states):
        layer: Any = model.blocks[block]
        weight, bias = tuned_lens.weight[block].double(), tuned_lens.bias[block].double()
        with literal.unfused(model), torch.enable_grad():
            weights, values = literal.attention_parts(layer, x)
            weights = weights.detach().requires_grad_()
            raw = layer.attn.proj((weights @ values.detach()).transpose(1, 2).flatten(2))
            added = layer.norm1(raw) if literal.is_post_norm(layer) else layer.ls1(raw)
            total = torch.zeros_like(weights)
            for query in variant.pooled:
                logits = literal.class_logits(model, added[:, query] @ weight.T + bias)
                value = literal.loss_of(logits, target, loss)
                (gradient,) = torch.autograd.grad(value, weights, retain_graph=True)
                total[:, :, query] -= gradient[:, :, query]
        expected = total[:, :, list(variant.pooled), prefix:].mean(dim=2)
        np.testing.assert_allclose(maps.isel(block=block), expected, rtol=0, atol=1e-10)
    every = tuned.trace(pixels).explain_every_class(loss=loss).values
    target_maps = np.stack([every[image, index] for image, index in enumerate(target.tolist())])
    np.testing.assert_allclose(target_maps, maps.sum(("block", "head")), rtol=0, atol=1e-10)
    streamed = list(tuned.trace(pixels).explain_classes(5, loss=loss))
    classes = np.concatenate([part.values for part in streamed], axis=1)
    target_maps = np.stack([classes[image, index] for image, index in enumerate(target.tolist())])
    np.testing.assert_allclose(target_maps, maps, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", KINDS)
def test_class_rank_and_legrad_read_translated_tokens(name: str) -> None:
    model, pixels, target, tuned_lens = zoo.build(name), zoo.pixels(name), zoo.targets(), drawn()
    variant = zoo.VARIANTS[name]
    prefix = len(variant.prefix)
    trace = classlens.load(model).with_tuned_lens(tuned_lens).trace(pixels)
    logits = by_hand(name, tuned_lens, "resid_post")[:, :, prefix:]
    target_logits = torch.stack([logits[image, ..., int(index)] for image, index in enumerate(target)])
    share = 1 - (logits > target_logits[..., None]).sum(dim=-1) / zoo.CLASSES
    np.testing.assert_allclose(trace.explain(target, method="class_rank"), share, rtol=0, atol=1e-6)
    maps = trace.explain(target, method="legrad", pool="head")
    mean = trace.explain(target, method="legrad")
    heads = 3
    for image in range(len(pixels)):
        passed = written_out(model, pixels[image : image + 1])
        for block, (weights, x) in enumerate(zip(passed.attention, passed.after, strict=True)):
            moved = x @ tuned_lens.weight[block].double().T + tuned_lens.bias[block].double()
            logit = model.forward_head(model.norm(moved))[0, int(target[image])]
            (gradient,) = torch.autograd.grad(logit, weights, retain_graph=True)
            expected = gradient[0].clamp_min(0).mean(dim=1)[:, prefix:] / (heads * BLOCKS)
            np.testing.assert_allclose(maps.isel(image=image, block=block), expected, rtol=0, atol=1e-10)
            # All tokens are pooled before the norms.
            pooled = model.fc_norm(model.norm(moved.mean(dim=1)))
            (gradient,) = torch.autograd.grad(model.head(pooled)[0, int(target[image])], weights, retain_graph=True)
            expected = gradient[0].clamp_min(0).mean(dim=1)[:, prefix:] / (heads * BLOCKS)
            np.testing.assert_allclose(mean.isel(image=image, block=block), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", KINDS)
def test_what_the_model_says_stays_the_model_s(name: str) -> None:
    model, pixels, target = zoo.build(name), zoo.pixels(name), zoo.targets()
    lens = classlens.load(model)
    plain, translated_trace = lens.trace(pixels), lens.with_tuned_lens(drawn()).trace(pixels)
    np.testing.assert_array_equal(translated_trace.model_logits, plain.model_logits)
    np.testing.assert_array_equal(translated_trace.predictions, plain.predictions)
    parts, tuned_parts = plain.attribution(target), translated_trace.attribution(target)
    for part in parts:
        np.testing.assert_array_equal(tuned_parts[part], parts[part], err_msg=str(part))
    for method in ("attention", "rollout", "chefer", "grad_cam", "logit_attribution", "random"):
        np.testing.assert_array_equal(
            translated_trace.explain(target, method=method), plain.explain(target, method=method), err_msg=method
        )
    checked = lens.with_tuned_lens(drawn()).check(pixels)
    assert (checked.law1, checked.law2) == (lens.check(pixels).law1, lens.check(pixels).law2)


def test_the_lens_itself_is_untouched() -> None:
    model, pixels = zoo.build("cls"), zoo.pixels("cls")
    lens = classlens.load(model)
    before, state = lens.trace(pixels).logits("resid_mid"), zoo.snapshot(model)
    view = lens.view
    tuned = lens.with_tuned_lens(drawn())
    tuned.trace(pixels).explain(method="class_gradient")
    assert lens.view is view
    assert lens.view.tuned_lens is None
    assert tuned.view.module is model
    assert zoo.snapshot(model) == state
    np.testing.assert_array_equal(lens.trace(pixels).logits("resid_mid"), before)
    # Another tuned lens takes the place of the first; they are not joined.
    again, once = (base.with_tuned_lens(drawn(seed=9)) for base in (tuned, lens))
    np.testing.assert_array_equal(again.trace(pixels).logits("mlp_out"), once.trace(pixels).logits("mlp_out"))


def test_edits_reach_a_tuned_lens() -> None:
    lens, pixels = classlens.load(zoo.build("cls")), zoo.pixels("cls")
    tuned = lens.with_tuned_lens(drawn())
    edit = classlens.AblateSublayer("mlp", blocks=[1])
    with lens.edit(edit):
        outer = tuned.trace(pixels).logits("resid_post")
    with tuned.edit(edit):
        inner = tuned.trace(pixels).logits("resid_post")
    np.testing.assert_array_equal(outer, inner)
    assert (outer != tuned.trace(pixels).logits("resid_post")).any()


def lens_of(dtype: torch.dtype = torch.float64, seed: int = 0) -> Lens:
    return classlens.load(zoo.build("cls", dtype, seed=seed))


def view_of() -> ModelView:
    return lens_of().view


def test_there_and_back(tmp_path: Path) -> None:
    tuned_lens, view = drawn(), view_of()
    file = tmp_path / "new" / "lens.safetensors"
    file.parent.mkdir()
    tuned_lens.save(file, view, {"how": "by hand"})
    loaded, metadata = read_tuned_lens(file, view)
    assert torch.equal(loaded.weight, tuned_lens.weight)
    assert torch.equal(loaded.bias, tuned_lens.bias)
    assert metadata["how"] == "by hand"
    assert metadata["model"] == view.name
    assert loaded.digest == tuned_lens.digest
    pixels = zoo.pixels("cls")
    lens = lens_of()
    for given in (file, str(file)):
        from_file, in_ram = lens.with_tuned_lens(given), lens.with_tuned_lens(tuned_lens)
        np.testing.assert_array_equal(from_file.trace(pixels).logits("mlp_out"), in_ram.trace(pixels).logits("mlp_out"))


def test_a_digest_tells_translators_apart() -> None:
    tuned_lens = drawn()
    same = TunedLens(tuned_lens.weight.clone(), tuned_lens.bias.clone())
    assert tuned_lens.digest == same.digest
    same.bias[2, 23] += 1
    assert tuned_lens.digest != same.digest
    same = TunedLens(tuned_lens.weight.clone(), tuned_lens.bias.clone())
    same.weight[0, 0, 0] += 1
    assert tuned_lens.digest != same.digest


def test_translators_that_do_not_fit(tmp_path: Path) -> None:
    lens, tuned_lens = lens_of(), drawn()
    refused(
        lambda: lens.with_tuned_lens(TunedLens(tuned_lens.weight[:2], tuned_lens.bias[:2])), "[2, 24, 24]", "3 blocks"
    )
    narrow = TunedLens(tuned_lens.weight[:, :5, :5], tuned_lens.bias[:, :5])
    refused(lambda: lens.with_tuned_lens(narrow), "[3, 5, 5]", "3 blocks of width 24")
    refused(lambda: TunedLens(tuned_lens.weight, tuned_lens.bias[:, :5]), "bias of type Tensor, [3, 5]", "width 24")
    refused(lambda: TunedLens(tuned_lens.weight[..., :5], tuned_lens.bias), "weight of type Tensor, [3, 24, 5]")
    for value in (float("nan"), float("inf")):
        for part in ("weight", "bias"):
            wrong = {"weight": tuned_lens.weight.clone(), "bias": tuned_lens.bias.clone()}
            wrong[part][1] = value
            refused(partial(lens.with_tuned_lens, TunedLens(**wrong)), "not finite", "make it anew")
    file = tmp_path / "lens.safetensors"
    tuned_lens.save(file, lens.view)
    refused(lambda: lens_of(seed=5).with_tuned_lens(file), "other weights", "tune one for this model")
    refused(lambda: lens_of(torch.float32).with_tuned_lens(file), "other weights")
    refused(lambda: lens.with_tuned_lens(tmp_path / "none.safetensors"), "none.safetensors", "cannot be read")
    save_file(load_file(file), tmp_path / "bare.safetensors")
    refused(lambda: lens.with_tuned_lens(tmp_path / "bare.safetensors"), "is no tuned lens of classlens")
    (tmp_path / "half.safetensors").write_bytes(file.read_bytes()[:200])
    refused(lambda: lens.with_tuned_lens(tmp_path / "half.safetensors"), "cannot be read")
    save_file({"weight": tuned_lens.weight}, tmp_path / "less.safetensors", {"classlens": "tuned lens"})
    refused(lambda: lens.with_tuned_lens(tmp_path / "less.safetensors"), "cannot be read")
    refused(lambda: tuned_lens.save(tmp_path / "none" / "a.safetensors", lens.view), "none", "cannot be written")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_a_file_of_other_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    lens = classlens.load("builtin:cifar10")
    whole = TunedLens.identity(lens.view)
    file = tmp_path / "lens.safetensors"
    whole.save(file, lens.view)
    with safe_open(file, framework="pt") as saved:
        save_file({"weight": whole.weight.to(dtype), "bias": whole.bias}, file, saved.metadata())
    name = str(dtype).removeprefix("torch.")
    refused(lambda: lens.with_tuned_lens(file), repr(str(file)), f"a weight of {name}", "expected float32 or float64")
    if not dtype.is_floating_point:
        refused(lambda: TunedLens(whole.weight, whole.bias.to(dtype)), "bias", name, "floats")
        return
    with unchecked():
        by_hand = TunedLens(whole.weight, whole.bias.to(dtype))
    refused(lambda: lens.with_tuned_lens(by_hand), f"a bias of {name}")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lens.safetensors")
    lens = classlens.load("builtin:cifar10")
    refused(lambda: lens.with_tuned_lens(tmp_path / "lens.safetensors"), "is not a regular file")
