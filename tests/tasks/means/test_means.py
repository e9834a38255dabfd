"""Means over a data set against a loop over its images; runs that are stopped, and images that cannot be read."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

import classlens
from classlens import Cluster, Dataset, Lens, Means, means
from classlens.data.open_dataset import open_dataset
from classlens.engine.progress import Progress
from classlens.models.transforms import paper_transform
from tests import zoo
from tests.data.pictures import folder
from tests.models.tiny_timm import SIZE_32
from tests.refusals import refused
from tests.tasks.means.loops import class_means_of, means_of
from tests.tasks.tiny import DATA_CLASSES, NAMES, labels_of, lens_of, pixels_of

IMAGES = 20
GIVEN: dict[str, Any] = {"workers": 0, "batch_size": 8}
# Means are rounded to float32 once, by at most half of its eps.
ROUNDING: dict[str, Any] = {"rtol": 2.0**-24, "atol": 1e-12}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "images", IMAGES, DATA_CLASSES)


def with_inner_norm() -> Lens:
    module = timm.create_model("vit_tiny_patch16_224", **SIZE_32, scale_attn_norm=True)
    zoo.randomize(module)
    return classlens.load(module.double().eval(), class_names=None, transform=paper_transform((32, 32)))


def made(name: str) -> Lens:
    return with_inner_norm() if name == "norm of joined heads" else lens_of(name)


def assert_same(one: Means, other: Means) -> None:
    """Every bit."""
    assert vars(one).keys() == vars(other).keys()
    for field, values in vars(one).items():
        expected = getattr(other, field)
        if field in ("values", "class_values"):
            assert values.keys() == expected.keys()
            assert all(torch.equal(values[key], expected[key]) for key in values)
        else:
            assert values == expected, field


@pytest.mark.parametrize("name", ["cls_layer_scale", "cls_registers", "avg_post_norm", "norm of joined heads"])
def test_means_are_those_of_a_loop_over_images(data: str, tmp_path: Path, name: str) -> None:
    lens = made(name)
    before = zoo.snapshot(lens.view.module)
    found = means(lens, data, tmp_path / "means.safetensors", **GIVEN)
    assert zoo.snapshot(lens.view.module) == before
    expected = means_of(lens.view.module, pixels_of(lens, data).double())
    assert found.means.values.keys() == expected.keys()
    for key, values in expected.items():
        assert found.means.values[key].dtype == torch.float32
        torch.testing.assert_close(found.means.values[key].double(), values, **ROUNDING)
    assert (found.means.images, found.means.data, found.skipped) == (IMAGES, data, {})
    assert (found.means.class_values, found.means.class_images) == ({}, {})
    assert_same(classlens.load_means(tmp_path / "means.safetensors"), found.means)
    assert [path.name for path in tmp_path.iterdir()] == ["means.safetensors"]


@pytest.mark.parametrize("name", ["cls_registers", "avg_post_norm"])
def test_means_by_class(data: str, tmp_path: Path, name: str) -> None:
    lens, labels = made(name), labels_of(data)
    prefix = len(lens.view.prefix)
    found = means(lens, data, tmp_path / "means.safetensors", by_class=True, **GIVEN).means
    assert found.class_images == {label: labels.count(label) for label in (0, 1, 2)}
    expected = class_means_of(lens.view.module, pixels_of(lens, data).double(), labels, prefix)
    for label, by_key in expected.items():
        own = found.by_class(NAMES[label])
        assert own.images == labels.count(label)
        for key, kinds in by_key.items():
            torch.testing.assert_close(found.class_values[key][label].double(), kinds, **ROUNDING)
            for token, values in enumerate(own.values[key].double()):
                torch.testing.assert_close(values, kinds[min(token, prefix)], **ROUNDING)
    plain = means(lens, data, tmp_path / "plain.safetensors", **GIVEN).means
    assert all(torch.equal(plain.values[key], values) for key, values in found.values.items())
    assert_same(classlens.load_means(tmp_path / "means.safetensors"), found)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_any_batch_size_gives_the_same(data: str, tmp_path: Path, batch_size: int) -> None:
    lens = lens_of()
    found = [
        means(lens, data, tmp_path / f"{size}.safetensors", by_class=True, workers=0, batch_size=size).means
        for size in (8, batch_size)
    ]
    for one, other in zip(*({**each.values, **each.class_values}.values() for each in found), strict=True):
        # Sums in float64 in another order may round to the other neighbor in float32.
        torch.testing.assert_close(one, other, rtol=2.0**-23, atol=1e-12)


def test_any_number_of_workers_gives_the_same_bits(data: str, tmp_path: Path) -> None:
    one = means(lens_of(dtype=torch.float32), data, tmp_path / "a.safetensors", **GIVEN).means
    other = means(lens_of(dtype=torch.float32), data, tmp_path / "b.safetensors", **{**GIVEN, "workers": 2}).means
    assert_same(one, other)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_gives_the_same_bits(tmp_path: Path) -> None:
    spec, model = folder(tmp_path / "images", 40), "builtin:cifar10"
    local = means(model, spec, tmp_path / "local.safetensors", by_class=True, **GIVEN).means
    cluster: dict[str, Any] = {"engine": "ray", "cluster": Cluster(actors=2)}
    assert_same(means(model, spec, tmp_path / "ray.safetensors", by_class=True, batch_size=8, **cluster).means, local)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_sums_are_float64_in_every_precision(data: str, tmp_path: Path, dtype: torch.dtype) -> None:
    """Of the very activations of the model, caught in the same batches."""
    lens = lens_of("cls_layer_scale", dtype)
    found = means(lens, data, tmp_path / "means.safetensors", **{**GIVEN, "batch_size": IMAGES}).means
    block: Any = lens.view.module.blocks[1]
    seen: dict[str, Tensor] = {}
    hooks = [
        block.drop_path2.register_forward_hook(lambda _, __, out: seen.update(mlp_out=out)),
        block.mlp.fc2.register_forward_pre_hook(lambda _, args: seen.update(mlp_coefficients=args[0])),
    ]
    with torch.no_grad():
        lens.view.module(pixels_of(lens, data).to(dtype))
    for hook in hooks:
        hook.remove()
    for point, x in seen.items():
        assert x.dtype == dtype
        expected = sum(image.double() for image in x) / IMAGES
        torch.testing.assert_close(found.values[f"{point}.1"].double(), expected, **ROUNDING)


def test_unreadable_images(tmp_path: Path) -> None:
    """Their black pixels count nowhere: a whole batch, and single images."""
    spec = folder(tmp_path / "images", IMAGES, DATA_CLASSES)
    names, broken = open_dataset(spec).names, [*range(8), 9, 19]
    for image in broken:
        (tmp_path / "images" / names[image]).write_bytes(b"no image")
    lens, out = lens_of(), tmp_path / "means.safetensors"
    refused(lambda: means(lens, spec, out, **GIVEN), names[0], "--skip-bad")
    assert not out.exists()
    found = means(lens, spec, out, by_class=True, skip_bad=True, **GIVEN)
    assert list(found.skipped) == [names[image] for image in broken]
    kept = [image for image in range(IMAGES) if image not in broken]
    picture = open_dataset(spec).picture
    pixels = torch.stack([lens.preprocessing(picture(image), "") for image in kept]).double()
    for key, values in means_of(lens.view.module, pixels).items():
        torch.testing.assert_close(found.means.values[key].double(), values, **ROUNDING)
    labels = [labels_of(spec)[image] for image in kept]
    assert found.means.class_images == {label: labels.count(label) for label in sorted(set(labels))}
    for label, by_key in class_means_of(lens.view.module, pixels, labels, 1).items():
        row = list(found.means.class_images).index(label)
        for key, kinds in by_key.items():
            torch.testing.assert_close(found.means.class_values[key][row].double(), kinds, **ROUNDING)
    again = means(lens, spec, out, by_class=True, skip_bad=True, **GIVEN)
    assert again.skipped == found.skipped
    for image in kept:
        (tmp_path / "images" / names[image]).write_bytes(b"no image")
    refused(lambda: means(lens, spec, tmp_path / "no.safetensors", skip_bad=True, **GIVEN), "no readable image")


def test_images_without_a_label_are_in_the_mean_of_all_alone(tmp_path: Path) -> None:
    lens, spec = lens_of(), folder(tmp_path / "images", 6, DATA_CLASSES)
    whole = open_dataset(spec)
    labels = [0, 0, 1, -1, 2, -1]
    dataset = Dataset.whole(spec, None, whole.names, labels, whole.classes, whole.source)
    found = means(lens, dataset, tmp_path / "means.safetensors", by_class=True, **GIVEN).means
    assert found.images == 6
    assert found.class_images == {0: 2, 1: 1, 2: 1}
    pixels = pixels_of(lens, spec).double()
    for key, values in means_of(lens.view.module, pixels).items():
        torch.testing.assert_close(found.values[key].double(), values, **ROUNDING)
    for label, by_key in class_means_of(lens.view.module, pixels[[0, 1, 2, 4]], [0, 0, 1, 2], 1).items():
        for key, kinds in by_key.items():
            torch.testing.assert_close(found.class_values[key][label].double(), kinds, **ROUNDING)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("by_class", [False, True])
def test_stopped_and_resumed(data: str, tmp_path: Path, by_class: bool) -> None:
    lens, out = lens_of(), tmp_path / "new" / "means.safetensors"
    begun: list[int] = []

    def stop(now: Progress) -> None:
        begun.append(now.done)
        if now.done >= 8 and len(begun) < 4:
            raise Stopped

    for _ in range(2):
        with pytest.raises(Stopped):
            means(lens, data, out, by_class=by_class, report=stop, **GIVEN)
    assert begun == [0, 8, 8]
    assert [path.name for path in out.parent.iterdir()] == ["means.safetensors.sums"]
    other = classlens.load(zoo.build("cls", seed=7), class_names=list(NAMES), transform=paper_transform((16, 16)))
    refused(lambda: means(other, data, out, by_class=by_class, **GIVEN), "of other weights", "means.safetensors.sums")
    found = means(lens, data, out, by_class=by_class, report=stop, **GIVEN)
    assert begun == [0, 8, 8, 8, 16, 20]
    assert [path.name for path in out.parent.iterdir()] == ["means.safetensors"]
    undisturbed = means(lens, data, tmp_path / "undisturbed.safetensors", by_class=by_class, **GIVEN)
    assert_same(found.means, undisturbed.means)
    assert_same(classlens.load_means(out), undisturbed.means)


def test_saved_from_time_to_time(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classlens.tasks.means.totals.SAVE_SECONDS", 0.0)
    monkeypatch.setattr("classlens.tasks.means.totals.SAVE_SHARE", float("inf"))
    checkpoint, seen = tmp_path / "means.safetensors.sums", []
    report = lambda now: seen.append((now.done, checkpoint.exists()))  # noqa: E731
    means(lens_of(), data, tmp_path / "means.safetensors", report=report, **GIVEN)
    assert seen == [(0, False), (8, False), (16, True), (20, True)]
    assert not checkpoint.exists()


def test_a_finished_run_is_read_again(data: str, tmp_path: Path) -> None:
    out = tmp_path / "means.safetensors"
    lens = lens_of()
    found = means(lens, data, out, **GIVEN)
    written = out.stat().st_mtime_ns

    def never(_: Progress) -> None:
        raise AssertionError("nothing is left to do")

    again = means(lens, data, out, report=never, **GIVEN)
    assert out.stat().st_mtime_ns == written
    assert_same(again.means, found.means)
    assert (again.seconds, again.skipped) == (found.seconds, {})
    for changes, says in (
        ({"by_class": True}, "by class False, not True"),
        ({"limit": 9}, "images 20, not 9"),
        ({"batch_size": 4}, "batch size 8, not 4"),
    ):
        refused(partial(means, lens, data, out, **{**GIVEN, **changes}), f"begun with {says}")
    assert out.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"out": "means.pt"}, ("'means.pt'", "ending in .safetensors")),
        ({"data": "folder:/nowhere"}, ("is not a folder",)),
        ({"batch_size": 100}, ("batch_size 100",)),
        ({"limit": 0}, ("limit 0 cannot be used",)),
        ({"by_class": 1}, ("by_class 1 cannot be used",)),
    ],
)
@pytest.mark.wrong_types
def test_what_cannot_be_asked_for(data: str, tmp_path: Path, changes: dict[str, Any], names: tuple[str, ...]) -> None:
    given: dict[str, Any] = {"data": data, "out": tmp_path / "means.safetensors", **GIVEN, **changes}
    refused(lambda: means(lens_of(), **given), *names)
    assert list(tmp_path.iterdir()) == []


def test_what_lies_there_already(data: str, tmp_path: Path) -> None:
    lens = lens_of()
    (tmp_path / "folder.safetensors").mkdir()
    refused(lambda: means(lens, data, tmp_path / "folder.safetensors", **GIVEN), "ending in .safetensors")
    (tmp_path / "text.safetensors").write_text("dear")
    refused(lambda: means(lens, data, tmp_path / "text.safetensors", **GIVEN), "cannot be read")
    assert (tmp_path / "text.safetensors").read_text() == "dear"
    (tmp_path / "a.safetensors.sums").write_text("dear")
    refused(lambda: means(lens, data, tmp_path / "a.safetensors", **GIVEN), "cannot be resumed", "remove it")


def test_means_by_class_need_labels(tmp_path: Path) -> None:
    spec = folder(tmp_path / "images", 3, [""])
    out = tmp_path / "means.safetensors"
    refused(lambda: means(lens_of(), spec, out, by_class=True, **GIVEN), "no labels, which means by class need")
    assert means(lens_of(), spec, out, **GIVEN).means.images == 3


def test_logits_that_are_not_finite(data: str, tmp_path: Path) -> None:
    lens: Any = lens_of()
    with torch.no_grad():
        lens.view.module.blocks[1].mlp.fc2.bias[0] = np.nan
    refused(lambda: means(lens, data, tmp_path / "means.safetensors", **GIVEN), "not finite")
    assert not (tmp_path / "means.safetensors").exists()
