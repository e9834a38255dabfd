"""A data set measured through a tuned lens and by probes, beside the class projection."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import classlens
from classlens import measure, probe
from classlens.data.open_dataset import open_dataset
from classlens.engine.progress import Progress
from classlens.engine.ray import Cluster
from classlens.lens.tuned_lens import TunedLens
from classlens.models.view import Site
from classlens.store.open_store import open_group
from classlens.store.probe_folder import ProbeFolder
from classlens.store.store import Store
from tests import zoo
from tests.data.pictures import assert_same, groups
from tests.refusals import refused
from tests.tasks.tiny import NAMES, Data, data_in, labels_of, lens_of, pixels_of, rank_of, states_of

SITES: tuple[Site, ...] = ("attn_out", "resid_mid", "mlp_out", "resid_post")
KINDS = ("probe", "probe_pooled", "probe_logistic")
ALL = ("clean", "tuned_lens", *KINDS)
ALONE: dict[str, Any] = {"workers": 0}
BLOCKS, TOKENS, WIDTH, TEST = 3, 5, 24, 70


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return data_in(tmp_path_factory.mktemp("data"), train=24, test=TEST)


def drawn(seed: int = 4) -> TunedLens:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(BLOCKS, WIDTH, WIDTH, generator=generator) / WIDTH**0.5
    return TunedLens(torch.eye(WIDTH) + noise, torch.randn(BLOCKS, WIDTH, generator=generator))


@pytest.fixture(scope="module")
def probes(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probes")
    for kind in ("ridge", "pooled", "logistic"):
        given: dict[str, Any] = {"kind": kind, "test_limit": 1, "sites": ("embed", *SITES), **ALONE}
        probe(lens_of(), *data, out, **given)
    return out


@pytest.fixture(scope="module")
def given(probes: Path) -> dict[str, Any]:
    return {"conditions": ALL, "tuned_lens": drawn(), "probes": probes, **ALONE}


@pytest.fixture(scope="module")
def store(data: Data, given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "run.zarr"
    measure(lens_of(), data.test, out, **given)
    return out


def test_a_tuned_lens_reads_what_it_reads_alone(store: Path, data: Data) -> None:
    lens, label = lens_of(), labels_of(data.test)
    assert groups(store) == sorted(ALL)
    tuned, clean = (open_group(store, name).load() for name in ("tuned_lens", "clean"))
    pixels = pixels_of(lens, data.test)
    through = lens.with_tuned_lens(drawn())
    for part in (slice(0, 16), slice(64, 70)):
        own = through.facts(pixels[part], SITES, label[part])
        embed = through.facts(pixels[part], "embed", label[part])
        for name in ("rank", "logit", "top1"):
            np.testing.assert_allclose(tuned[name].values[part], own[name].values, rtol=0, atol=1e-5)
            np.testing.assert_allclose(
                tuned[f"embed_{name}"].values[part], embed[name].values[:, 0, 0], rtol=0, atol=1e-5
            )
    assert (tuned["rank"].values != clean["rank"].values).mean() > 0.3
    for name in ("embed_rank", "prediction", "correct", "kept", "class_token"):
        np.testing.assert_array_equal(tuned[name], clean[name])


@pytest.mark.parametrize("condition", KINDS)
def test_probes_read_what_they_are_trained_to(store: Path, probes: Path, data: Data, condition: str) -> None:
    """By loops over the files: one image, site, block and token at a time."""
    lens, label = lens_of(), labels_of(data.test)
    found, clean = (open_group(store, name).load() for name in (condition, "clean"))
    assert (found["trajectory_rank"] == -1).all()
    states = states_of(lens, data.test)
    files = ProbeFolder(probes / condition)
    compared = 0
    for site in ("embed", *SITES):
        for block in range(1 if site == "embed" else BLOCKS):
            for token in range(TOKENS):
                where = (
                    {key: found[f"embed_{key}"].values[:, token] for key in ("rank", "logit", "top1")}
                    if site == "embed"
                    else {
                        key: found[key].sel(site=site, block=block).isel(token=token).values
                        for key in ("rank", "logit", "top1")
                    }
                )
                own = [one for one in files.probes(site, block) if token in range(*one.tokens.indices(TOKENS))]
                if not own:
                    assert condition == "probe_pooled"
                    assert token == 0
                    assert (where["rank"] == -1).all()
                    assert (where["top1"] == -1).all()
                    assert np.isnan(where["logit"]).all()
                    continue
                (one,) = own
                place = 0 if len(one.weight) == 1 else token - one.tokens.start
                weight, bias = one.weight[place].double().numpy(), one.bias[place].double().numpy()
                for image in (0, 1, 33, 69):
                    scores = states[site][block][image, token].numpy() @ weight + bias
                    rank, top1 = rank_of(scores, label[image])
                    assert where["logit"][image] == pytest.approx(scores[label[image]], rel=1e-6, abs=1e-5)
                    # Classes without an image tie.
                    if np.abs(np.delete(scores, label[image]) - scores[label[image]]).min() > 1e-5:
                        assert where["rank"][image] == rank
                        compared += 1
                    assert scores[where["top1"][image]] == pytest.approx(scores[top1], abs=1e-5)
    assert compared > 200
    for name in ("prediction", "correct", "label", "target", "kept"):
        np.testing.assert_array_equal(found[name], clean[name])


def test_one_store_holds_values_of_one_decoder(store: Path, data: Data, given: dict[str, Any], tmp_path: Path) -> None:
    lens = lens_of()
    refused(
        lambda: measure(lens, data.test, store, **{**given, "tuned_lens": drawn(5)}),
        "'tuned_lens'",
        "another tuned lens",
    )
    probe(lens, *data, tmp_path, sites=("embed", *SITES), alpha=3.0, test_limit=1, **ALONE)
    refused(
        lambda: measure(lens, data.test, store, **{**given, "conditions": "probe", "probes": tmp_path}),
        "'probe'",
        "other probes",
    )
    # The same tuned lens from a file.
    drawn().save(tmp_path / "lens.safetensors", lens.view, {})
    again = measure(lens, data.test, store, **{**given, "tuned_lens": tmp_path / "lens.safetensors"})
    assert again.before == TEST


def test_what_is_not_there(data: Data, probes: Path, tmp_path: Path) -> None:
    lens, out = lens_of(), tmp_path / "run.zarr"
    for name, says in (("tuned_lens", "`classlens tune`"), *((kind, "`classlens probe`") for kind in KINDS)):
        refused(lambda name=name: measure(lens, data.test, out, conditions=name), f"{name!r} needs", says)  # type: ignore[misc]
    refused(lambda: measure(lens, data.test, out, conditions="probe", probes=tmp_path / "no"), "holds no probes")
    other = classlens.load(
        zoo.build("cls", seed=8), class_names=list(NAMES), transform=lens.preprocessing.transform or None
    )
    refused(lambda: measure(other, data.test, out, conditions="probe", probes=probes), "other weights")
    drawn().save(tmp_path / "lens.safetensors", lens.view, {})
    refused(
        lambda: measure(other, data.test, out, conditions="tuned_lens", tuned_lens=tmp_path / "lens.safetensors"),
        "other weights",
    )
    few = TunedLens(drawn().weight[:2], drawn().bias[:2])
    refused(lambda: measure(lens, data.test, out, conditions="tuned_lens", tuned_lens=few), "3 blocks of width 24")
    assert not out.exists()


def test_probes_that_are_not_all_trained(data: Data, tmp_path: Path) -> None:
    def stop(now: Progress) -> None:
        if now.doing == "solving 3 of 3":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe(lens_of(), *data, tmp_path / "probes", sites="resid_post", report=stop, **ALONE)
    asked: dict[str, Any] = {"conditions": "probe", "probes": tmp_path / "probes", "sites": "resid_post", **ALONE}
    refused(lambda: measure(lens_of(), data.test, tmp_path / "run.zarr", **asked), "not all trained yet")


def test_sites_without_probes_are_blank(data: Data, tmp_path: Path) -> None:
    probe(lens_of(), *data, tmp_path / "probes", sites="mlp_out", test_limit=1, **ALONE)
    measure(lens_of(), data.test, tmp_path / "run.zarr", conditions="probe", probes=tmp_path / "probes", **ALONE)
    found = open_group(tmp_path / "run.zarr", "probe").load()
    for site in SITES:
        assert (
            (found["rank"].sel(site=site) >= 0).all()
            if site == "mlp_out"
            else (found["rank"].sel(site=site) == -1).all()
        )
    assert (found["embed_rank"] == -1).all()


class Stopped(Exception):
    pass


def test_stopped_and_gone_on_with(
    store: Path, data: Data, given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run.zarr"

    def stop(now: Progress) -> None:
        if now.done == 64:
            raise Stopped

    with pytest.raises(Stopped):
        measure(lens_of(), data.test, out, **given, report=stop)
    assert (open_group(out, "probe")["rank"].values[64:] == -1).all()
    written = Store.write

    def full(self: Store, group: str, *args: Any) -> None:
        if group == "probe_pooled":
            raise OSError(errno.ENOSPC, "No space left on device")
        written(self, group, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "write", full)
        with pytest.raises(OSError, match="No space left"):
            measure(lens_of(), data.test, out, **given)
    assert measure(lens_of(), data.test, out, **given).before == 64
    assert_same(out, store)


def test_conditions_that_are_added_later(store: Path, data: Data, given: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"
    for name in reversed(ALL):
        measure(lens_of(), data.test, out, **{**given, "conditions": name})
    assert_same(out, store)


def test_memories_through_a_tuned_lens(data: Data, tmp_path: Path) -> None:
    """Memories and their coefficients are the model's; what their top-1 class is set beside is the tuned one."""
    lens = lens_of()
    out = tmp_path / "run.zarr"
    measure(
        lens, data.test, out, conditions=("clean", "tuned_lens"), tuned_lens=drawn(), memories=True, limit=9, **ALONE
    )
    clean, tuned = (open_group(out, name).load() for name in ("clean", "tuned_lens"))
    np.testing.assert_array_equal(clean["key_value_agreement"], tuned["key_value_agreement"])
    module: Any = lens.view.module
    taken = [open_dataset(data.test).names.index(name) for name in open_dataset(data.test, limit=9).names]
    pixels, block = pixels_of(lens, data.test)[taken].double(), 1
    layer = module.blocks[block]
    seen: list[torch.Tensor] = []
    hook = layer.mlp.fc2.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        module(pixels)
    hook.remove()
    scores = module.head.weight @ layer.mlp.fc2.weight
    for image in range(9):
        for token in range(TOKENS):
            used = seen[0][image, token].argsort(descending=True)[:5].tolist()
            top1 = int(tuned["top1"].sel(site="mlp_out", block=block)[image, token])
            matches = any(int(scores[:, unit].argmax()) == top1 for unit in used)
            assert bool(tuned["memory_match"].sel(sublayer="mlp", block=block)[image, token]) == matches
    probe(lens, *data, tmp_path / "probes", sites=("attn_out", "mlp_out"), test_limit=1, **ALONE)
    measure(lens, data.test, out, conditions="probe", probes=tmp_path / "probes", memories=True, limit=9, **ALONE)
    assert (open_group(out, "probe")["memory_match"] == -1).all()


def test_a_tuned_lens_is_not_taken_for_the_model(data: Data, tmp_path: Path) -> None:
    """Its values under ``clean`` could not be told from the model's own."""
    tuned = lens_of().with_tuned_lens(drawn())
    out = tmp_path / "run.zarr"
    refused(lambda: measure(tuned, data.test, out, **ALONE), "has a tuned lens", "condition 'tuned_lens'")
    refused(lambda: probe(tuned, *data, tmp_path / "probes", **ALONE), "has a tuned lens")
    assert not any(tmp_path.iterdir())


def test_translators_that_do_not_fit_are_refused_before_anything_is_trained(data: Data, tmp_path: Path) -> None:
    few = TunedLens(drawn().weight[:2], drawn().bias[:2])
    for given, says in ((few, "3 blocks of width 24"), (tmp_path / "none.safetensors", "cannot be read")):
        refused(lambda one=given: probe(lens_of(), *data, tmp_path / "out", tuned_lens=one, **ALONE), says)  # type: ignore[misc]
    assert not (tmp_path / "out").exists()


def test_a_model_that_averages(data: Data, tmp_path: Path) -> None:
    lens = lens_of("avg")
    probe(lens, *data, tmp_path / "probes", sites="resid_post", tuned_lens=drawn(), **ALONE)
    found = open_group(tmp_path / "probes" / "probes.zarr", "tuned_lens").load()
    own = lens.with_tuned_lens(drawn()).facts(pixels_of(lens, data.test), "resid_post", labels_of(data.test))
    np.testing.assert_array_equal(found["rank"].values, own["rank"].values)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_on_a_cluster(tmp_path: Path) -> None:
    """Actors load the model, the tuned lens and the probes themselves, and write the same."""
    from tests.data.pictures import folder

    train, test = folder(tmp_path / "train", 20), folder(tmp_path / "test", 30)
    for path in sorted((tmp_path / "test").rglob("*.png"))[::2]:
        path.unlink()
    lens = classlens.load("builtin:cifar10")
    width, blocks = 128, len(lens.view.blocks)
    made = TunedLens(torch.eye(width).repeat(blocks, 1, 1) + 0.02, torch.zeros(blocks, width))
    probe("builtin:cifar10", train, test, tmp_path / "probes", sites="resid_post", tokens="cls", **ALONE)
    asked: dict[str, Any] = {
        "conditions": ("clean", "tuned_lens", "probe"),
        "tuned_lens": made,
        "probes": tmp_path / "probes",
        "sites": "resid_post",
    }
    measure("builtin:cifar10", test, tmp_path / "local.zarr", **asked, **ALONE)
    measure("builtin:cifar10", test, tmp_path / "ray.zarr", **asked, engine="ray", cluster=Cluster(actors=2))
    assert_same(tmp_path / "ray.zarr", tmp_path / "local.zarr")
    assert len(open_dataset(test)) == 15
