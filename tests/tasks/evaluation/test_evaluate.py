"""A whole data set: what the store holds, runs that were stopped or added to, and what cannot be measured."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import zarr

import classlens
from classlens import Statistics, evaluate, open_store
from classlens.data.class_mapping import map_classes
from classlens.data.registry import open_dataset
from classlens.engine.ray import Cluster
from classlens.engine.work import Progress
from classlens.models.transforms import paper_transform
from classlens.tasks.evaluation.evaluate import STORE, EvaluateResult, tables
from classlens.tasks.evaluation.masking import Masking
from classlens.tasks.evaluation.method_spec import parse_methods
from classlens.tasks.evaluation.pointing import quadruples
from tests import zoo
from tests.data.pictures import assert_same, folder, imagenet_s
from tests.refusals import refused
from tests.tasks.evaluation.batches import seen

MODEL = "builtin:cifar10"
IMAGES = 70
SOME: dict[str, Any] = {
    "methods": ["class_gradient", "rollout", "random"],
    "metrics": ["removal", "masking", "pointing", "class_sensitivity"],
    "steps": 4,
    "permutations": 2,
}
WNIDS = ("n01440764", "n01443537", "n02123045")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder(tmp_path_factory.mktemp("data") / "images", IMAGES)


@pytest.fixture(scope="module")
def whole(data: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EvaluateResult]:
    out = tmp_path_factory.mktemp("evaluation") / "whole"
    return out, evaluate(MODEL, data, out, **SOME)


def test_every_image_is_what_it_is_alone(data: str, whole: tuple[Path, EvaluateResult]) -> None:
    """The store against one image at a time, through an edited model."""
    lens, dataset = classlens.load(MODEL), open_dataset(data)
    labels = map_classes(dataset, lens.classes, model_name=MODEL)
    store = open_store(whole[0] / STORE, "removal.class_gradient").load()
    assert store["kept"].values.tolist() == [64, 43, 22, 1]
    assert store["label"].values.tolist() == labels.tolist()
    assert store["measured"].values.tolist() == [1] * IMAGES
    different = 0
    for image in (0, 17, 63, 64, 69):
        pixels = lens.preprocessing(dataset.picture(image), "")[None]
        trace = lens.trace(pixels)
        values = trace.map(int(labels[image])).values.flatten()
        ranked = np.argsort(-values, kind="stable")
        for direction in (0, 1):
            for column, number in enumerate((64, 43, 22, 1)):
                mask = torch.zeros(65, dtype=torch.bool)
                mask[0] = True
                mask[1 + (ranked[:number] if direction == 0 else ranked[::-1][:number]).copy()] = True
                with lens.edit(classlens.KeepTokens(mask)):
                    right = int(lens.view.run(pixels).argmax()) == labels[image]
                assert store["correct"].values[image, direction, column] == right
                different += right
    assert 0 < different < 40


def test_mosaics_are_of_four_classes_and_every_image_is_explained_once(
    data: str, whole: tuple[Path, EvaluateResult]
) -> None:
    store = open_store(whole[0] / STORE, "pointing.class_gradient").load()
    labels = store["label"].values
    assert len(labels) == 68
    assert len(set(store["image"].values.tolist())) == 68
    assert all(len(set(four)) == 4 for four in labels.reshape(-1, 4).tolist())
    dataset = open_dataset(data)
    everyone = map_classes(dataset, classlens.load(MODEL).classes, model_name=MODEL)
    order = quadruples(everyone, 0)
    assert store["image"].values.tolist() == [dataset.names[index] for index in order]
    share = store["share"].values
    assert ((share >= 0) & (share <= 1)).all()
    assert open_store(whole[0] / STORE, "pointing.rollout")["share"].values.mean() == pytest.approx(0.25, abs=1e-6)


def test_tables(whole: tuple[Path, EvaluateResult]) -> None:
    scores, curves = whole[1].scores, whole[1].curves
    assert list(scores["metric"].unique()) == ["removal", "masking", "pointing", "class_sensitivity"]
    removal = open_store(whole[0] / STORE, "removal.rollout")["correct"].values
    found = curves[(curves.method == "rollout") & (curves.metric == "removal") & (curves.curve == "positive")]
    np.testing.assert_allclose(found["value"], removal[:, 1].mean(axis=0))
    np.testing.assert_allclose(found["x"], [0, 21 / 64, 42 / 64, 63 / 64])
    assert (scores["low"] <= scores["value"]).all()
    assert (scores["value"] <= scores["high"]).all()
    assert set(scores[scores.method == "random"]["metric"]) == {"removal", "masking", "pointing"}
    assert whole[1].missing == {}
    assert whole[1].outcome.images == IMAGES + 68


def test_a_group_that_a_killed_run_left_behind(whole: tuple[Path, EvaluateResult], tmp_path: Path) -> None:
    shutil.copytree(whole[0] / STORE, tmp_path / STORE)
    zarr.open_group(str(tmp_path / STORE)).create_group("removal.chefer")
    scores, _ = tables(str(tmp_path / STORE), Statistics())
    pd.testing.assert_frame_equal(scores, whole[1].scores)


def test_it_is_no_store_of_measurements(whole: tuple[Path, EvaluateResult]) -> None:
    refused(lambda: classlens.analyze(whole[0] / STORE), STORE, "`classlens evaluate`", "results")


def test_stopped_and_gone_on_with(data: str, whole: tuple[Path, EvaluateResult], tmp_path: Path) -> None:
    out = tmp_path / "run"
    told: list[Progress] = []

    def stop(now: Progress) -> None:
        told.append(now)
        if now.done > now.before:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            evaluate(MODEL, data, out, **SOME, report=stop)
    done = [now.done for now in told]
    assert done == [0, 64, 64, 70]
    again = evaluate(MODEL, data, out, **SOME, report=told.append)
    assert (told[4].done, told[4].before, told[-1].done, told[-1].images) == (70, 70, 138, 138)
    assert again.outcome.before == 70
    assert_same(out / STORE, whole[0] / STORE)
    pd.testing.assert_frame_equal(again.scores, whole[1].scores)


def test_methods_and_metrics_are_added_later(data: str, whole: tuple[Path, EvaluateResult], tmp_path: Path) -> None:
    out = tmp_path / "run"
    few = {**SOME, "methods": ["rollout"], "metrics": ["removal"]}
    first = evaluate(MODEL, data, out, **few)
    assert first.scores["method"].unique().tolist() == ["rollout"]
    evaluate(MODEL, data, out, **{**SOME, "methods": ["random", "class_gradient"]})
    last = evaluate(MODEL, data, out, **{**SOME, "methods": ["rollout"]})
    assert_same(out / STORE, whole[0] / STORE)
    pd.testing.assert_frame_equal(last.scores, whole[1].scores)


def test_a_store_of_something_else(data: str, whole: tuple[Path, EvaluateResult], tmp_path: Path) -> None:
    refused(lambda: evaluate(MODEL, data, whole[0], **{**SOME, "steps": 5}), "steps", "'5'")
    refused(lambda: evaluate(MODEL, data, whole[0], **SOME, seed=1), "seed")
    (tmp_path / "letter.txt").write_text("dear")
    refused(lambda: evaluate(MODEL, data, tmp_path, **SOME), repr(str(tmp_path)), STORE)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({"steps": 1}, ("steps is 1",)),
        ({"permutations": 0}, ("permutations is 0",)),
        ({"metrics": ["removals"]}, ("'removals'", "did you mean 'removal'")),
        ({"metrics": ["segmentation"]}, ("'segmentation'", "no masks")),
        ({"metrics": []}, ("no metrics",)),
        ({"methods": ["deeplift"]}, ("'deeplift'",)),
        ({"engine": "dask"}, ("'dask'",)),
        ({"metrics": ["completeness"]}, ("nothing of completeness", "rollout")),
        ({"metrics": ["pointing"], "limit": 3}, ("'pointing'", "fewer than four classes", "leave it out")),
        ({"statistics": Statistics(resamples=0)}, ("resamples 0",)),
    ],
)
def test_what_cannot_be_asked_for(data: str, tmp_path: Path, more: dict[str, Any], names: tuple[str, ...]) -> None:
    refused(lambda: evaluate(MODEL, data, tmp_path / "run", **{**SOME, **more}), *names)
    assert not (tmp_path / "run").exists()


def test_images_without_a_class_and_images_that_cannot_be_read(tmp_path: Path) -> None:
    spec = folder(tmp_path / "images", 12)
    bad = tmp_path / "images" / "cat" / "0003.png"
    bad.write_bytes(b"no image")
    given = {**SOME, "metrics": ["removal", "class_sensitivity"], "methods": ["class_gradient"]}
    refused(lambda: evaluate(MODEL, spec, tmp_path / "run", **given), str(bad), "--skip-bad")
    dataset = open_dataset(spec)
    unlabeled = replace(dataset, labels=np.where(dataset.labels == 6, -1, dataset.labels))
    found = evaluate(MODEL, unlabeled, tmp_path / "other", **given, skip_bad=True)
    assert list(found.outcome.skipped) == ["cat/0003.png"]
    store = open_store(tmp_path / "other" / STORE, "removal.class_gradient").load()
    gone = np.array([name.startswith(("frog", "cat")) for name in store["image"].values])
    assert gone.sum() == 2
    assert (store["correct"].values[gone] == -1).all()
    assert (store["correct"].values[~gone] >= 0).all()
    assert set(found.scores["images"]) == {10}
    bare = replace(dataset, labels=np.full(12, -1))
    refused(lambda: evaluate(MODEL, bare, tmp_path / "none", **given), "no labels")


def test_a_mosaic_with_a_hole_is_none(tmp_path: Path) -> None:
    spec = folder(tmp_path / "images", 16)
    (tmp_path / "images" / "cat" / "0003.png").write_bytes(b"no image")
    given: dict[str, Any] = {"metrics": ["pointing"], "methods": ["class_gradient"], "skip_bad": True}
    found = evaluate(MODEL, spec, tmp_path / "run", **given)
    store = open_store(tmp_path / "run" / STORE, "pointing.class_gradient").load()
    (hole,) = np.flatnonzero(store["image"].values == "cat/0003.png") // 4
    gone = np.isnan(store["share"].values).reshape(-1, 4)
    assert gone.all(axis=1).nonzero()[0].tolist() == [hole]
    assert gone.sum() == 4
    assert found.scores["images"].tolist() == [store.sizes["image"] - 4]


def test_masks_and_a_model_without_a_twin(tmp_path: Path) -> None:
    names = ["goldfish", "tench, Tinca tinca", "tabby, tabby cat", *(f"other {number}" for number in range(8))]
    lens = classlens.load(zoo.build("cls", torch.float32), class_names=names, transform=paper_transform((16, 16)))
    spec = imagenet_s(tmp_path / "data", WNIDS, 3)
    found = evaluate(lens, spec, tmp_path / "run", steps=2, permutations=1)
    assert set(found.missing) == {"randomization", "pointing"}
    assert "no random twin" in found.missing["randomization"]
    assert "four classes" in found.missing["pointing"]
    store = open_store(tmp_path / "run" / STORE, "segmentation.class_gradient").load()
    # The strip of rows 38 and 39 of 40, rows 15.2 and on of 16, is to be ignored: floor(15 · 40 / 16) is 37.
    assert store["pixels"].values.tolist() == [256] * 9
    assert (store["intersection"].values <= 128).all()
    scores = found.scores[found.scores.metric == "segmentation"]
    assert set(scores["measure"]) == {"pixel_accuracy", "mean_iou", "mean_ap"}
    assert set(found.scores[found.scores.metric == "completeness"]["method"]) == {"logit_attribution"}
    refused(lambda: evaluate(lens, spec, tmp_path / "run", metrics=["randomization"]), "'randomization'", "twin")


def test_a_method_that_a_model_does_not_have(tmp_path: Path) -> None:
    """Attention pooling has no attribution and no rows of its own: left out of all, refused when asked for."""
    import timm

    model = timm.create_model(
        "vit_base_patch16_siglip_224", pretrained=False, num_classes=3, img_size=32, embed_dim=24, depth=2, num_heads=2
    ).eval()
    names = ["cat", "dog", "frog"]
    lens = classlens.load(model, class_names=names, transform=paper_transform((32, 32)))
    spec = folder(tmp_path / "images", 6, names)
    given: dict[str, Any] = {"metrics": ["class_sensitivity"]}
    refused(lambda: evaluate(lens, spec, tmp_path / "no", methods=["logit_attribution"], **given), "attribution")
    found = evaluate(lens, spec, tmp_path / "run", **given)
    assert "logit_attribution" in found.missing
    for method in ("attention", "rollout", "chefer"):
        assert "weighs its tokens by an attention of its own" in found.missing[method]
        assert method not in set(found.scores["method"])
        refused(lambda method=method: evaluate(lens, spec, tmp_path / "no", methods=[method], **given), "query=")  # type: ignore[misc]
    assert "class_gradient" in set(found.scores["method"])
    assert "logit_attribution" not in set(found.scores["method"])


def test_randomization_falls_for_a_trained_model(data: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"metrics": ["randomization"], "methods": ["class_gradient", "attention"], "limit": 20}
    found = evaluate(MODEL, data, tmp_path / "run", **given)
    store = open_store(tmp_path / "run" / STORE, "randomization.attention")["correlation"].values
    assert store.shape == (20, 8)
    np.testing.assert_allclose(store[:, 0], 1, atol=1e-6)  # attention knows of no head
    last = found.curves[(found.curves.method == "class_gradient") & (found.curves.x == 1.0)]
    assert abs(float(last["value"].iloc[0])) < 0.2


def test_the_random_map_is_that_of_the_seed(data: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"metrics": ["masking"], "methods": ["random"], "limit": 4, "seed": 3}
    evaluate(MODEL, data, tmp_path / "run", **given)
    stored = open_store(tmp_path / "run" / STORE, "masking.random")["correct"].values
    lens = classlens.load(MODEL)
    dataset = open_dataset(data, limit=4)
    pixels = torch.stack([lens.preprocessing(dataset.picture(image), "") for image in range(4)])
    target = torch.as_tensor(map_classes(dataset, lens.classes, model_name=MODEL), dtype=torch.int64)
    (plain,) = parse_methods("random")
    third = Masking().measure(seen(lens, pixels, target), replace(plain, options={"seed": 3}))["correct"]
    assert (stored == third).all()
    assert (stored != Masking().measure(seen(lens, pixels, target), plain)["correct"]).any()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_on_a_cluster(data: str, whole: tuple[Path, EvaluateResult], tmp_path: Path) -> None:
    found = evaluate(MODEL, data, tmp_path / "run", **SOME, engine="ray", cluster=Cluster(actors=2))
    assert_same(tmp_path / "run" / STORE, whole[0] / STORE)
    pd.testing.assert_frame_equal(found.scores, whole[1].scores)
