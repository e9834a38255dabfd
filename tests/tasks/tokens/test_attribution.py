"""Contributions and strongest tokens of a store, against traces of its images and hooks on modules of the model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image
from torch import Tensor

import classlens
from classlens import ClasslensError, Cluster, Lens, measure
from classlens.data.open_dataset import open_dataset
from classlens.engine import runner, session
from classlens.engine.progress import Progress
from classlens.lens.memories import memory_classes
from classlens.models.transforms import paper_transform
from classlens.store.open_store import open_group
from tests import zoo
from tests.data.pictures import assert_same, folder, groups, picture
from tests.tasks.tiny import DATA_CLASSES, LOCAL, NAMES, labels_of, lens_of, pixels_of

ASKED: dict[str, Any] = {"units": 6, "batch_size": 8, **LOCAL}
IMAGES = 70


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "images", IMAGES, DATA_CLASSES)


@pytest.fixture(scope="module")
def whole(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run."""
    out = tmp_path_factory.mktemp("stores") / "whole.zarr"
    measure(lens_of(), data, out, **ASKED)
    return out


def hidden_units(lens: Lens, pixels: Tensor) -> Tensor:
    """Activations of the hidden units, ``[image, block, token, unit]``, from hooks on timm's modules."""
    held: list[Tensor] = []
    hooks = [
        block.mlp.fc2.register_forward_pre_hook(lambda _, inputs: held.append(inputs[0]))
        for block in lens.view.module.blocks
    ]
    with torch.no_grad():
        lens.view.module(pixels)
    for hook in hooks:
        hook.remove()
    return torch.stack(held, dim=1)


def strongest(values: np.ndarray[Any, Any]) -> list[tuple[int, int]]:
    """Image and token of the 9 images with the largest values; equal values by position."""
    best = [(image, int(row.argmax())) for image, row in enumerate(values)]
    return sorted(best, key=lambda entry: (-values[entry], *entry))[:9]


@pytest.mark.parametrize(
    "name",
    ["cls", "cls_layer_scale", "cls_registers", "cls_rms_post_norm", "cls_no_qkv_bias", "avg_norm_before_pool", "avg"],
)
def test_contributions_are_those_of_a_trace(name: str, tmp_path: Path) -> None:
    """The trace sums to the model's own logits (law 3, tested there); the mean logit is the mean over classes."""
    lens, data = lens_of(name), folder(tmp_path / "images", 10, DATA_CLASSES)
    measure(lens, data, tmp_path / "run.zarr", **ASKED)
    group, pixels = open_group(tmp_path / "run.zarr", "attribution").load(), pixels_of(lens, data)
    trace = lens.trace(pixels.double())
    every = [trace.attribution(category) for category in range(zoo.CLASSES)]
    label, prediction = labels_of(data), trace.predictions.values.tolist()
    logits = trace.model_logits.values
    for stored, traced in (("head", "attention"), ("mlp", "mlp"), ("embed", "embed"), ("bias", "bias")):
        values = np.stack([each[traced].values for each in every])
        expected = [values[label, range(10)], values[prediction, range(10)], values.mean(axis=0)]
        actual = group[f"{stored}_contribution"].values
        # float32 of a float64 model: 1e-7 of numbers of order 10.
        np.testing.assert_allclose(actual, np.stack(expected, axis=1), atol=5e-6, rtol=1e-6)
    expected = [logits[range(10), label], logits[range(10), prediction], logits.mean(axis=1)]
    np.testing.assert_allclose(group["attributed_logit"].values, np.stack(expected, axis=1), rtol=1e-6)


@pytest.mark.parametrize("name", ["cls", "cls_registers", "avg"])
def test_attention_is_that_of_a_trace(name: str, tmp_path: Path) -> None:
    lens, data = lens_of(name), folder(tmp_path / "images", 5, DATA_CLASSES)
    measure(lens, data, tmp_path / "run.zarr", **ASKED)
    group = open_group(tmp_path / "run.zarr", "attribution").load()
    weights = lens.trace(pixels_of(lens, data).double()).attention(queries="all").values
    entropy = -(weights * np.log(weights)).sum(axis=-1).mean(axis=-1)
    np.testing.assert_allclose(group["attention_entropy"].values, entropy, rtol=1e-6)
    among = weights[..., -4:, -4:]
    positions = np.array([(row, column) for row in range(2) for column in range(2)])
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
    expected = ((among * distances).sum(axis=-1) / among.sum(axis=-1)).mean(axis=-1)
    np.testing.assert_allclose(group["attention_distance"].values, expected, rtol=1e-6)


def test_strongest_tokens_of_units_are_those_of_a_sort(whole: Path, data: str) -> None:
    lens = lens_of()
    hidden = hidden_units(lens, pixels_of(lens, data).double())[:, :, 1:].float().numpy()
    tokens = open_group(whole, "unit_tokens").load()
    assert tokens["coefficient"].dims == ("block", "unit", "top")
    for block in range(3):
        for unit in range(hidden.shape[-1]):
            values = hidden[:, block, :, unit]
            order = strongest(values)
            at = {"block": block, "unit": unit}
            assert tokens["token_image"].isel(at).values.tolist() == [image for image, _ in order]
            assert tokens["token"].isel(at).values.tolist() == [token + 1 for _, token in order]
            np.testing.assert_allclose(tokens["coefficient"].isel(at), [values[entry] for entry in order], rtol=1e-6)
    np.testing.assert_allclose(tokens["active_share"], (hidden > 0).mean(axis=(0, 2)), rtol=1e-6)
    assert tokens.attrs["tokens_seen"] == IMAGES * 4


def test_units_that_add_most_are_those_of_all(whole: Path, data: str) -> None:
    """Units of the last block add ``coefficient · W_out · w ⊙ (E_c - mean E) / σ``: no block comes after."""
    lens = lens_of()
    model: Any = lens.view.module
    pixels = pixels_of(lens, data).double()
    hidden = hidden_units(lens, pixels)[:, -1, 0]
    with torch.no_grad():
        last = lens.trace(pixels).states("resid_post", blocks=[2], tokens="cls").values[:, 0, 0]
        scale = torch.from_numpy(last).var(dim=1, correction=0).add(model.norm.eps).sqrt()
        direction = model.norm.weight * (model.head.weight[labels_of(data)] - model.head.weight.mean(dim=0))
        direction = direction - direction.mean(dim=1, keepdim=True)
        expected = hidden * (direction @ model.blocks[-1].mlp.fc2.weight) / scale[:, None]
    group = open_group(whole, "units").load()
    units, values = group["top_unit"].sel(unit_of="label"), group["top_unit_contribution"].sel(unit_of="label")
    assert (np.diff(np.abs(values), axis=1) <= 0).all(), "the strongest comes first"
    size = group.attrs["units_per_block"]
    last_block = units.values // size == 2
    assert last_block.sum() > 50
    image = np.nonzero(last_block)[0]
    listed = expected.numpy()[image, units.values[last_block] % size]
    np.testing.assert_allclose(values.values[last_block], listed, atol=1e-5, rtol=1e-5)
    for row, contributions in enumerate(np.abs(expected.numpy())):
        stronger = np.flatnonzero(contributions > np.abs(values.values[row, -1]) * (1 + 1e-5))
        assert {2 * size + unit for unit in stronger} <= set(units.values[row].tolist())


def test_strongest_tokens_of_heads(whole: Path, data: str) -> None:
    lens = lens_of()
    trace = lens.trace(pixels_of(lens, data).double())
    every = np.stack([trace.attribution(category)["attention_token"].values for category in range(zoo.CLASSES)])
    above = (every[labels_of(data), range(IMAGES)] - every.mean(axis=0))[..., 1:]
    tokens = open_group(whole, "head_tokens").load()
    for block, head in np.ndindex(3, 3):
        values = above[:, block, head]
        order = strongest(values)
        at = {"block": block, "head": head}
        assert (
            list(zip(tokens["token_image"].isel(at).values, tokens["token"].isel(at).values - 1, strict=True)) == order
        )
        np.testing.assert_allclose(tokens["contribution"].isel(at), [values[entry] for entry in order], rtol=1e-4)


def test_value_classes_are_those_of_the_memories(whole: Path) -> None:
    lens, tokens = lens_of(), open_group(whole, "unit_tokens").load()
    for block, unit in ((0, 3), (2, 47)):
        expected = memory_classes(lens, "mlp", block, unit, k=5)
        at = {"block": block, "unit": unit}
        assert tokens["value_class"].isel(at).values.tolist() == expected["category"].values.tolist()
        np.testing.assert_allclose(tokens["value_score"].isel(at), expected["score"], rtol=1e-6)
        np.testing.assert_allclose(tokens["value_cosine"].isel(at), expected["cosine"], rtol=1e-6)


def test_maps_of_heads_are_those_of_the_weights(whole: Path) -> None:
    """``E W_V W_O Eᵀ`` in float64, all entries sorted."""
    model: Any = lens_of().view.module
    maps, embedding = open_group(whole, "head_maps").load(), model.head.weight.detach()
    for block, head in ((0, 0), (2, 1)):
        attn, part = model.blocks[block].attn, slice(8 * head, 8 * head + 8)
        value, output = attn.qkv.weight.detach()[48:][part], attn.proj.weight.detach()[:, part]
        entries = embedding @ value.T @ output.T @ embedding.T
        at = {"block": block, "head": head}
        pairs = maps["input_class"].isel(at).values, maps["output_class"].isel(at).values
        order = entries.flatten().sort(descending=True).indices[:20].numpy()
        assert (pairs[0] * zoo.CLASSES + pairs[1]).tolist() == order.tolist()
        np.testing.assert_allclose(maps["score"].isel(at), entries[pairs], rtol=1e-5)
        assert maps["copy_share"].isel(at) == pytest.approx(np.mean(entries.argmax(dim=1).numpy() == np.arange(11)))


def test_facts_beside_them_stay_as_they_are(whole: Path, data: str, tmp_path: Path) -> None:
    plain = tmp_path / "plain.zarr"
    measure(lens_of(), data, plain, batch_size=8, **LOCAL)
    assert groups(whole) == ["attribution", "clean", "head_maps", "head_tokens", "unit_tokens", "units"]
    xr.testing.assert_identical(open_group(plain, "clean").load(), open_group(whole, "clean").load())
    measure(lens_of(), data, plain, attribution=True, batch_size=8, **LOCAL)
    assert groups(plain) == ["attribution", "clean", "head_maps", "head_tokens"]
    measure(lens_of(), data, plain, **ASKED)
    assert_same(plain, whole)


def test_images_without_a_label(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(4):
        picture(number).save(tmp_path / f"images/{number}.png")
    measure(lens_of(), f"folder:{tmp_path / 'images'}", tmp_path / "run.zarr", **ASKED)
    group, units = (open_group(tmp_path / "run.zarr", name).load() for name in ("attribution", "units"))
    assert np.isnan(group["head_contribution"].sel(of="label")).all()
    assert not np.isnan(group["head_contribution"].sel(of=["prediction", "mean"])).any()
    assert (units["top_unit"].sel(unit_of="label") == -1).all()
    assert (units["top_unit"].sel(unit_of="prediction") >= 0).all()
    strongest_images = open_group(tmp_path / "run.zarr", "head_tokens")["token_image"].values[..., :4]
    assert (np.sort(strongest_images) == np.arange(4)).all(), "the prediction takes the place of the label"


class Stopped(Exception):
    pass


@pytest.mark.parametrize("seconds", [0.0, 1000.0])
def test_stopped_and_gone_on_with(
    data: str, whole: Path, tmp_path: Path, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stops between any two groups of any batch, whether or not what is finished was written before."""
    monkeypatch.setattr(runner, "SAVE_SECONDS", seconds)
    monkeypatch.setattr(session, "SAVE_SECONDS", seconds)
    out = tmp_path / "run.zarr"
    for stop in (1, 4, 9, 11, 40, 60, 66):

        def report(now: Progress, stop: int = stop) -> None:
            if now.done + now.under_way >= stop:
                raise Stopped

        with pytest.raises(Stopped):
            measure(lens_of(), data, out, **ASKED, report=report)
    measure(lens_of(), data, out, **ASKED)
    assert_same(out, whole)


def test_a_store_in_an_object_store(data: str, whole: Path) -> None:
    def report(now: Progress) -> None:
        if now.done >= 64:
            raise Stopped

    out = "memory://bucket/attribution.zarr"
    with pytest.raises(Stopped):
        measure(lens_of(), data, out, **ASKED, report=report)
    assert measure(lens_of(), data, out, **ASKED).before == 64
    assert_same(out, whole)


@pytest.mark.parametrize("harm", ["no tally", "half a tally", "a shard", "a group", "strongest tokens"])
def test_damage_is_mended(whole: Path, data: str, tmp_path: Path, harm: str) -> None:
    out = tmp_path / "run.zarr"
    shutil.copytree(whole, out)
    if harm == "no tally":
        (out / "units/measured/tally").unlink()
    elif harm == "half a tally":
        path = out / "attribution/measured/tally"
        changed = bytearray(path.read_bytes())
        changed[-3] ^= 1
        path.write_bytes(changed)
    elif harm == "a shard":
        (out / "units/top_unit/c/1/0/0").write_bytes(b"half")
    else:
        shutil.rmtree(out / ("units" if harm == "a group" else "head_tokens"))
    result = measure(lens_of(), data, out, **ASKED)
    assert_same(out, whole)
    assert ("the record of its strongest tokens is gone" in result.note) == ("tally" in harm)
    assert result.before == {"a shard": 64, "strongest tokens": IMAGES}.get(harm, 0)


def test_an_image_that_changed_leaves_nothing(data: str, tmp_path: Path) -> None:
    """Its tokens were among the strongest, so that every image has to be counted again."""
    shutil.copytree(data.removeprefix("folder:"), tmp_path / "images")
    images = f"folder:{tmp_path / 'images'}"
    measure(lens_of(), images, tmp_path / "run.zarr", **ASKED)
    Image.new("RGB", (32, 32), (250, 10, 10)).save(tmp_path / "images/cat/0003.png")
    assert (
        "from its first image, as images have changed"
        in measure(lens_of(), images, tmp_path / "run.zarr", **ASKED).note
    )
    measure(lens_of(), images, tmp_path / "fresh.zarr", **ASKED)
    assert_same(tmp_path / "run.zarr", tmp_path / "fresh.zarr")


def test_an_unreadable_image(data: str, tmp_path: Path) -> None:
    shutil.copytree(data.removeprefix("folder:"), tmp_path / "images")
    images, broken = f"folder:{tmp_path / 'images'}", tmp_path / "images/dog/0010.png"
    whole_bytes = broken.read_bytes()
    broken.write_bytes(whole_bytes[:40])
    with pytest.raises(ClasslensError, match="0010"):
        measure(lens_of(), images, tmp_path / "run.zarr", **ASKED)
    result = measure(lens_of(), images, tmp_path / "run.zarr", **ASKED, skip_bad=True)
    assert list(result.skipped) == ["dog/0010.png"]
    row = list(open_dataset(images).names).index("dog/0010.png")
    for group, name in (("attribution", "head_contribution"), ("attribution", "frame"), ("units", "top_unit")):
        values = open_group(tmp_path / "run.zarr", group)[name].values[row]
        assert (np.isnan(values) | (values == -1)).all()
    for group in ("head_tokens", "unit_tokens"):
        stored = open_group(tmp_path / "run.zarr", group)
        assert not (stored["token_image"].values == row).any()
        assert stored.attrs["tokens_seen"] == (IMAGES - 1) * 4
    broken.write_bytes(whole_bytes)
    measure(lens_of(), images, tmp_path / "run.zarr", **ASKED)
    measure(lens_of(), data, tmp_path / "fresh.zarr", **ASKED)
    runs = [open_group(tmp_path / name, "unit_tokens").load() for name in ("run.zarr", "fresh.zarr")]
    xr.testing.assert_equal(*runs)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"units": 0}, "units 0 cannot be used"),
        ({"units": 7}, "has 6 units of each image, not 7: give --units 6"),
    ],
)
def test_mistakes(whole: Path, data: str, tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    shutil.copytree(whole, tmp_path / "run.zarr")
    with pytest.raises(ClasslensError, match=says):
        measure(lens_of(), data, tmp_path / "run.zarr", conditions=("clean", "no_cls"), **{**ASKED, **changes})
    assert_same(tmp_path / "run.zarr", whole)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_on_a_cluster(data: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"units": 6, "batch_size": 8}
    images = folder(tmp_path / "images", 150)
    measure("builtin:cifar10", images, tmp_path / "local.zarr", **given, workers=0)
    measure("builtin:cifar10", images, tmp_path / "ray.zarr", **given, engine="ray", cluster=Cluster(actors=2))
    assert_same(tmp_path / "ray.zarr", tmp_path / "local.zarr")


@pytest.mark.parametrize(
    ("name", "site"), [("cls", "resid_post"), ("avg", "resid_post"), ("cls", "mlp_out"), ("avg", "resid_mid")]
)
def test_directions_in_the_place_of_units(name: str, site: Any, tmp_path: Path) -> None:
    """An orthogonal basis as directions: coefficients are coordinates, contributions sum to that of the site."""
    lens, data = lens_of(name), folder(tmp_path / "images", 10, DATA_CLASSES)
    basis = torch.linalg.qr(torch.randn(24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    directions = classlens.Directions(basis, site, 2)
    measure(lens, data, tmp_path / "run.zarr", directions=directions, **{**ASKED, "units": 24})
    trace = lens.trace(pixels_of(lens, data).double())
    states = trace.states(site, blocks=[2]).values[:, 0]
    coordinates = torch.from_numpy(states) @ basis.T
    tokens, units = (open_group(tmp_path / "run.zarr", group).load() for group in ("unit_tokens", "units"))
    order = strongest(coordinates[:, -4:, 7].numpy())
    assert tokens["token_image"].isel(block=2, unit=7).values.tolist() == [image for image, _ in order]
    assert (tokens["token_image"].isel(block=[0, 1]) == -1).all()
    assert (units["top_unit"] // 24 == 2).all()
    model: Any = lens.view.module
    scores = model.head.weight.detach() @ basis.T
    assert tokens["value_class"].isel(block=2, class_rank=0).values.tolist() == scores.argmax(dim=0).tolist()
    if site != "resid_post":
        return
    # Law 3: with the scale of the norm held, the state gives the logit but for the biases of the norm and the head.
    norm = model.norm if isinstance(model.norm, torch.nn.LayerNorm) else model.fc_norm
    constant = (model.head(norm.bias)).detach()
    logits = torch.from_numpy(trace.model_logits.values) - constant
    above = logits[range(10), labels_of(data)] - logits.mean(dim=1)
    contributions = units["top_unit_contribution"].sel(unit_of="label").sum("rank")
    np.testing.assert_allclose(contributions, above, atol=1e-5)


def test_features_that_are_off_add_nothing(data: str, tmp_path: Path) -> None:
    """An autoencoder of which three features are on: no other one, and no other block, stands in the lists."""
    bias = torch.full((24,), -1e3)
    bias[[2, 5, 7]] = 1e3
    eye = torch.eye(24)
    directions = classlens.Directions(eye, "resid_post", 1, encoder=eye, encoder_bias=bias)
    measure(lens_of(), data, tmp_path / "run.zarr", directions=directions, **ASKED)
    units = open_group(tmp_path / "run.zarr", "units").load()
    assert {tuple(sorted(row)) for row in units["top_unit"].values.reshape(-1, 6)} == {(-1, -1, -1, 26, 29, 31)}
    assert (np.isnan(units["top_unit_contribution"]) == (units["top_unit"] == -1)).all()


def test_heads_that_differ_between_blocks_are_refused(data: str, tmp_path: Path) -> None:
    model: Any = zoo.build("cls")
    other = type(model)(img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=2, num_classes=11).double()
    model.blocks[1] = other.blocks[0]
    lens = classlens.load(model, class_names=list(NAMES), transform=paper_transform((16, 16)))
    with pytest.raises(ClasslensError, match="different numbers of heads"):
        measure(lens, data, tmp_path / "new.zarr", **ASKED)
    assert not (tmp_path / "new.zarr").exists()


def test_directions_that_do_not_fit(whole: Path, data: str, tmp_path: Path) -> None:
    identity = classlens.Directions(torch.eye(24), "embed", 0)
    shutil.copytree(whole, tmp_path / "run.zarr")
    with pytest.raises(ClasslensError, match="holds hidden units as its units"):
        measure(lens_of(), data, tmp_path / "run.zarr", directions=identity, **ASKED)
    for given, says in (
        (classlens.Directions(torch.eye(24), "resid_post", 3), "do not fit model"),
        (classlens.Directions(torch.eye(23), "resid_post", 2), "width"),
    ):
        with pytest.raises(ClasslensError, match=says):
            measure(lens_of(), data, tmp_path / "new.zarr", directions=given, **ASKED)
    with pytest.raises(ClasslensError, match="whose number is missing"):
        measure(lens_of(), data, tmp_path / "new.zarr", directions=identity)
    assert not (tmp_path / "new.zarr").exists()
