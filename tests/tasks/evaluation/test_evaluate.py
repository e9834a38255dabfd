"""Evaluations of a data set: values of the store, stopped and extended runs, images that cannot be measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import classlens
from classlens import Cluster, Lens, Progress, evaluate
from classlens.data.dataset import ClassName
from classlens.data.open_dataset import open_dataset
from classlens.store.open_store import open_group
from classlens.tasks.evaluation.evaluate import STORE
from classlens.tasks.evaluation.metrics.masking import Masking
from classlens.tasks.evaluation.mosaics import quadruples
from tests.data.pictures import assert_same, folder
from tests.refusals import refused
from tests.tasks.evaluation.batches import batch_of, method_of
from tests.tasks.evaluation.runs import IMAGES, SETTINGS, Evaluation, labels_of, pixels_of, tiny_lens

NUMBERS = [6, 4, 3, 1]


def test_every_image_has_the_values_that_it_has_alone(lens: Lens, data: str, complete: Evaluation) -> None:
    """The store against one image and number of tokens at a time, through an edited model."""
    dataset = open_dataset(data)
    labels = labels_of(dataset, lens)
    store = open_group(complete.out / STORE, "removal.class_gradient").load()
    assert store["kept"].values.tolist() == NUMBERS
    assert store["label"].values.tolist() == labels
    assert store["measured"].values.tolist() == [1] * IMAGES
    images = [*range(0, 64, 7), 64, 69]
    hits = 0
    for image in images:
        pixels = pixels_of(dataset, lens, image)
        values = lens.trace(pixels).map(labels[image], method="class_gradient").values.flatten()
        ranked = np.argsort(-values, kind="stable")
        for direction in (0, 1):
            for column, number in enumerate(NUMBERS):
                mask = torch.zeros(7, dtype=torch.bool)
                mask[0] = True
                mask[1 + (ranked[:number] if direction == 0 else ranked[::-1][:number]).copy()] = True
                with lens.edit(classlens.KeepTokens(mask)):
                    correct = int(lens.view.run(pixels).argmax()) == labels[image]
                assert store["correct"].values[image, direction, column] == correct
                hits += correct
    assert 0 < hits < 8 * len(images)


def test_mosaics_are_of_four_classes_and_every_image_is_explained_once(
    lens: Lens, data: str, complete: Evaluation
) -> None:
    store = open_group(complete.out / STORE, "pointing.class_gradient").load()
    labels = store["label"].values
    assert len(labels) == 68
    assert len(set(store["image"].values.tolist())) == 68
    assert all(len(set(quadruple)) == 4 for quadruple in labels.reshape(-1, 4).tolist())
    dataset = open_dataset(data)
    order = quadruples(np.array(labels_of(dataset, lens)), 0)
    assert store["image"].values.tolist() == [dataset.names[index] for index in order]
    share = store["share"].values
    assert ((share >= 0) & (share <= 1)).all()
    assert open_group(complete.out / STORE, "pointing.rollout")["share"].values.mean() == pytest.approx(0.25, abs=1e-6)


def test_it_is_not_a_store_of_measure(complete: Evaluation) -> None:
    refused(lambda: classlens.analyze(complete.out / STORE), STORE, "`classlens evaluate`", "results")


def test_a_stopped_run_resumes(lens: Lens, data: str, complete: Evaluation, tmp_path: Path) -> None:
    out = tmp_path / "run"
    reports: list[Progress] = []

    def stop(progress: Progress) -> None:
        """In the midst of a batch, then after one."""
        reports.append(progress)
        if progress.under_way > 4 or progress.done > max(progress.before, 40):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            evaluate(lens, data, out, **SETTINGS, report=stop)
    reached = reports[-1].done
    again = len(reports)
    resumed = evaluate(lens, data, out, **SETTINGS, report=reports.append)
    assert (reports[again].done, reports[again].before) == (reached, reached)
    assert (reports[-1].done, reports[-1].images) == (138, 138)
    assert resumed.run.before == reached
    assert_same(out / STORE, complete.out / STORE)
    pd.testing.assert_frame_equal(resumed.scores, complete.result.scores)


def test_methods_and_metrics_are_added_later(lens: Lens, data: str, complete: Evaluation, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = evaluate(lens, data, out, **{**SETTINGS, "methods": ["rollout"], "metrics": ["removal"]})
    assert first.scores["method"].unique().tolist() == ["rollout"]
    evaluate(lens, data, out, **{**SETTINGS, "methods": ["random", "class_gradient"]})
    last = evaluate(lens, data, out, **{**SETTINGS, "methods": ["rollout"]})
    assert_same(out / STORE, complete.out / STORE)
    pd.testing.assert_frame_equal(last.scores, complete.result.scores)


def test_other_settings_and_other_files(lens: Lens, data: str, complete: Evaluation, tmp_path: Path) -> None:
    refused(lambda: evaluate(lens, data, complete.out, **{**SETTINGS, "steps": 5}), "steps 4, not 5")
    refused(lambda: evaluate(lens, data, complete.out, **{**SETTINGS, "steps": "all"}), "steps", "all")
    refused(lambda: evaluate(lens, data, complete.out, **SETTINGS, seed=1), "seed")
    (tmp_path / "letter.txt").write_text("dear")
    refused(lambda: evaluate(lens, data, tmp_path, **SETTINGS), repr(str(tmp_path)), STORE)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"steps": 1}, ("steps 1 cannot be used",)),
        ({"steps": True}, ("steps True cannot be used",)),
        ({"permutations": 0}, ("permutations 0 cannot be used",)),
        ({"seed": -1}, ("seed -1 cannot be used",)),
        ({"metrics": ["removals"]}, ("'removals'", "did you mean 'removal'")),
        ({"metrics": []}, ("no metrics",)),
        ({"methods": ["deeplift"]}, ("'deeplift'",)),
        ({"engine": "ray"}, ("a loaded model", "the model's name")),
    ],
)
def test_wrong_options(lens: Lens, data: str, tmp_path: Path, options: dict[str, Any], names: tuple[str, ...]) -> None:
    refused(lambda: evaluate(lens, data, tmp_path / "run", **{**SETTINGS, **options}), *names)
    assert not (tmp_path / "run").exists()


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"steps": "many"}, ("steps 'many' cannot be used", "or 'all'")),
        ({"steps": None}, ("steps None cannot be used", "or 'all'")),
        ({"engine": "dask"}, ("engine 'dask' is not known", "local, ray")),
    ],
)
def test_options_of_wrong_types(
    lens: Lens, data: str, tmp_path: Path, options: dict[str, Any], names: tuple[str, ...]
) -> None:
    refused(lambda: evaluate(lens, data, tmp_path / "run", **{**SETTINGS, **options}), *names)
    assert not (tmp_path / "run").exists()


def test_unlabeled_and_unreadable_images(lens: Lens, tmp_path: Path) -> None:
    spec = folder(tmp_path / "images", 12)
    unreadable = tmp_path / "images" / "cat" / "0003.png"
    unreadable.write_bytes(b"no image")
    options = {**SETTINGS, "metrics": ["removal", "class_sensitivity"], "methods": ["class_gradient"]}
    refused(lambda: evaluate(lens, spec, tmp_path / "run", **options), str(unreadable), "--skip-bad")
    dataset = open_dataset(spec)
    unlabeled = replace(dataset, labels=np.where(dataset.labels == 6, -1, dataset.labels))
    result = evaluate(lens, unlabeled, tmp_path / "other", **options, skip_bad=True)
    assert list(result.run.skipped) == ["cat/0003.png"]
    store = open_group(tmp_path / "other" / STORE, "removal.class_gradient").load()
    void = np.array([name.startswith("cat") for name in store["image"].values])
    assert void.sum() == 1
    assert (store["correct"].values[void] == -1).all()
    assert (store["correct"].values[~void] >= 0).all()
    assert set(result.scores["images"]) == {11}
    assert result.run.unlabeled == 1


def test_images_without_labels_are_evaluated_for_their_prediction(lens: Lens, data: str, tmp_path: Path) -> None:
    """As if the predictions were their labels; mosaics need labels."""
    dataset = open_dataset(data, limit=20)
    options = {**SETTINGS, "metrics": ["removal", "class_sensitivity"], "methods": ["class_gradient"]}
    without = evaluate(lens, replace(dataset, labels=np.full(20, -1)), tmp_path / "without", **options)
    names = tuple(ClassName(name) for name in lens.classes.names)
    predicted = np.array([int(lens.view.run(pixels_of(dataset, lens, image)).argmax()) for image in range(20)])
    labeled = evaluate(lens, replace(dataset, labels=predicted, classes=names), tmp_path / "labeled", **options)
    pd.testing.assert_frame_equal(without.scores, labeled.scores)
    assert without.run.unlabeled == 20
    mosaics = {**options, "metrics": ["pointing"]}
    unlabeled = replace(dataset, labels=np.full(20, -1))
    refused(lambda: evaluate(lens, unlabeled, tmp_path / "none", **mosaics), "labels of fewer than four classes")


def test_a_mosaic_with_an_unreadable_quarter(lens: Lens, tmp_path: Path) -> None:
    spec = folder(tmp_path / "images", 16)
    (tmp_path / "images" / "cat" / "0003.png").write_bytes(b"no image")
    options = {**SETTINGS, "metrics": ["pointing"], "methods": ["class_gradient"], "skip_bad": True}
    result = evaluate(lens, spec, tmp_path / "run", **options)
    store = open_group(tmp_path / "run" / STORE, "pointing.class_gradient").load()
    (unreadable,) = np.flatnonzero(store["image"].values == "cat/0003.png") // 4
    void = np.isnan(store["share"].values).reshape(-1, 4)
    assert void.all(axis=1).nonzero()[0].tolist() == [unreadable]
    assert void.sum() == 4
    assert result.scores["images"].tolist() == [store.sizes["image"] - 4]


def test_maps_of_a_trained_model_lose_their_correlation_with_its_weights(data: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"metrics": ["randomization"], "methods": ["class_gradient", "attention"], "limit": 20}
    result = evaluate("builtin:cifar10", data, tmp_path / "run", **options)
    correlation = open_group(tmp_path / "run" / STORE, "randomization.attention")["correlation"].values
    assert correlation.shape == (20, 8)
    np.testing.assert_allclose(correlation[:, 0], 1, atol=1e-6)  # attention does not depend on the head
    last = result.curves[(result.curves.method == "class_gradient") & (result.curves.x == 1.0)]
    assert abs(float(last["value"].iloc[0])) < 0.2


def test_the_random_map_is_that_of_the_seed(data: str, lens: Lens, tmp_path: Path) -> None:
    options = {**SETTINGS, "metrics": ["masking"], "methods": ["random"], "seed": 3}
    evaluate(lens, data, tmp_path / "run", **options)
    stored = open_group(tmp_path / "run" / STORE, "masking.random")["correct"].values
    dataset = open_dataset(data)
    pixels = torch.cat([pixels_of(dataset, lens, image) for image in range(IMAGES)])
    target = torch.tensor(labels_of(dataset, lens))
    default = method_of("random")
    seeded = replace(default, options={"seed": 3})
    assert (stored == Masking().measure(batch_of(lens, pixels, target), seeded)["correct"]).all()
    assert (stored != Masking().measure(batch_of(lens, pixels, target), default)["correct"]).any()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_writes_the_same_values(data: str, tmp_path: Path) -> None:
    options = {**SETTINGS, "methods": ["class_gradient", "random"], "metrics": ["removal", "pointing"]}
    local = evaluate("builtin:cifar10", data, tmp_path / "local", **options)
    cluster = Cluster(actors=2)
    result = evaluate("builtin:cifar10", data, tmp_path / "run", **options, engine="ray", cluster=cluster)
    assert_same(tmp_path / "run" / STORE, tmp_path / "local" / STORE)
    pd.testing.assert_frame_equal(result.scores, local.scores)


def test_another_model_is_another_store(data: str, complete: Evaluation) -> None:
    refused(lambda: evaluate(tiny_lens(seed=1), data, complete.out, **SETTINGS), "weights")
