"""Ranks of a store as importance, compared with loops; stores that cannot be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import classlens
from classlens import Lens, Progress, evaluate, measure, probe
from classlens.data.class_mapping import map_classes
from classlens.data.open_dataset import open_dataset
from classlens.lens.tuned_lens import TunedLens
from classlens.models.transforms import paper_transform
from classlens.store.open_store import open_group
from classlens.tasks.evaluation.evaluate import STORE
from classlens.tasks.evaluation.importance import StoredImportance, parse_methods
from classlens.tasks.evaluation.registry import METRICS
from classlens.tasks.evaluation.stored_ranks import stored_importance
from classlens.tasks.probes.probe import STORE as PROBES
from tests import zoo
from tests.data.pictures import folder, groups
from tests.refusals import refused
from tests.tasks.tiny import NAMES, Data, data_in, labels_of, lens_of

TOKENS, BLOCKS, IMAGES = 6, 3, 20
MODEL = "cls_not_square"
ALONE: dict[str, Any] = {"workers": 0}
SETTINGS: dict[str, Any] = {"metrics": ["removal"], "steps": "all", "permutations": 2, **ALONE}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return data_in(tmp_path_factory.mktemp("data"), train=24, test=IMAGES)


@pytest.fixture(scope="module")
def ranks(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probes")
    lens = lens_of(MODEL)
    tuned_lens = TunedLens.identity(lens.view)
    tuned_lens.bias.normal_()
    options: dict[str, Any] = {"sites": ("attn_out", "resid_post"), **ALONE}
    probe(lens, *data, out, **options, tuned_lens=tuned_lens)
    probe(lens, *data, out, **options, kind="pooled")
    return out / PROBES


def importance(lens: Lens, ranks: Path, data: str, **options: Any) -> Any:
    dataset = open_dataset(data)
    labels = map_classes(dataset, lens.classes, model_name="tiny")
    return stored_importance(ranks, dataset, lens, labels, **options)


def by_loops(ranks: Path, condition: str, site: str) -> list[list[float]]:
    store = open_group(ranks, condition).load()
    number = store["site"].values.tolist().index(site)
    values = []
    for image in range(store.sizes["image"]):
        row = []
        for token in range(store.sizes["token"]):
            if store["token_kind"].values[token] == "image":
                block_ranks = [int(store["rank"].values[image, number, block, token]) for block in range(BLOCKS)]
                row.append(-float(sum(block_ranks)))
        values.append(row)
    return values


@pytest.mark.parametrize("site", ["resid_post", "attn_out"])
@pytest.mark.parametrize("condition", ["clean", "probe", "probe_pooled", "tuned_lens"])
def test_it_is_minus_the_sum_of_ranks(ranks: Path, data: Data, condition: str, site: str) -> None:
    values = importance(lens_of(MODEL), ranks, data.test, condition=condition, site=site)
    assert values.shape == (IMAGES, TOKENS)
    assert values.dtype == np.float32
    assert values.tolist() == by_loops(ranks, condition, site)
    assert len(np.unique(values)) > 5


def test_images_are_found_by_their_names(ranks: Path, data: Data) -> None:
    lens, dataset = lens_of(MODEL), open_dataset(data.test)
    all_values = importance(lens, ranks, data.test, condition="probe")
    chosen = np.array([7, 3, 11])
    labels = np.array(labels_of(data.test))[chosen]
    values = stored_importance(ranks, dataset.subset(chosen), lens, labels, condition="probe")
    np.testing.assert_array_equal(values, all_values[chosen])


def test_tokens_are_removed_in_that_order(ranks: Path, data: Data, tmp_path: Path) -> None:
    """One image and number of tokens at a time, through an edited model."""
    lens, dataset = lens_of(MODEL), open_dataset(data.test)
    name = "stored_rank:condition=probe"
    evaluate(lens, data.test, tmp_path / "out", methods=[name], ranks=ranks, **SETTINGS)
    store = open_group(tmp_path / "out" / STORE, f"removal.{name}").load()
    assert store["kept"].values.tolist() == [6, 5, 4, 3, 2, 1]
    values, labels = by_loops(ranks, "probe", "resid_post"), labels_of(data.test)
    hits = 0
    for image in range(IMAGES):
        pixels = lens.preprocessing(dataset.picture(image), "")[None].double()
        order = sorted(range(TOKENS), key=lambda token: -values[image][token])
        for direction, ranked in enumerate((order, order[::-1])):
            for column, number in enumerate((6, 5, 4, 3, 2, 1)):
                mask = torch.zeros(TOKENS + 1, dtype=torch.bool)
                mask[0] = True
                mask[[1 + token for token in ranked[:number]]] = True
                with lens.edit(classlens.KeepTokens(mask)):
                    correct = int(lens.view.run(pixels).argmax()) == labels[image]
                assert store["correct"].values[image, direction, column] == correct, (image, direction, number)
                hits += correct
    assert hits > 10


@pytest.mark.slow
def test_all_adds_every_probe_and_tuned_lens(ranks: Path, data: Data, tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": 2, "permutations": 1, "limit": 4, **ALONE}
    scores = evaluate(lens_of(MODEL), data.test, tmp_path / "out", ranks=ranks, **options).scores
    names = {f"stored_rank:condition={name}" for name in ("tuned_lens", "probe", "probe_pooled")}
    assert {method for method in scores["method"] if method.startswith("stored")} == names
    for name in names:
        # Other metrics explain other images, classes or weights.
        probability = {"insertion", "deletion", "road", "average_drop"}
        assert set(scores[scores.method == name]["metric"]) == {"removal", "masking"} | probability
    assert set(scores[scores.method == "chefer"]["metric"]) > {"removal", "masking"}
    without_ranks = evaluate(lens_of(MODEL), data.test, tmp_path / "other", **options, metrics=["removal"]).scores
    assert not any(method.startswith("stored") for method in without_ranks["method"])


def test_metrics_that_apply_to_ranks() -> None:
    (method,) = parse_methods(["stored_rank:condition=probe:site=attn_out"])
    assert isinstance(method, StoredImportance)
    assert (method.text, method.options) == (
        "stored_rank:condition=probe:site=attn_out",
        {"condition": "probe", "site": "attn_out"},
    )
    names = {name for name, metric in METRICS.items() if metric.applies_to(method)}
    needs_a_method = {"pointing", "class_sensitivity", "randomization", "completeness"}
    assert names == METRICS.keys() - needs_a_method


@pytest.mark.parametrize(
    ("methods", "names"),
    [
        (["stored_rank"], ("'stored_rank'", "stored_rank:condition=probe")),
        (["stored_rank:site=attn_out"], ("condition=probe",)),
        (["stored_rank:condition=probe:block=3"], ("'stored_rank:condition=probe:block=3'",)),
        (["stored_rank:condition"], ("NAME:OPTION=VALUE",)),
        (["stored_ranks:condition=probe"], ("'stored_ranks'",)),
        (["stored_rank:condition=probes"], ("no condition 'probes'", "did you mean 'probe'", "clean, probe")),
        (["stored_rank:condition=random_init"], ("no condition 'random_init'",)),
        (["stored_rank:condition=probe:site=mlp_out"], ("no site 'mlp_out'", "attn_out, resid_post", ":site=attn_out")),
        (["stored_rank:condition=probe:site=embed"], ("no site 'embed'",)),
    ],
)
def test_wrong_methods_of_a_store(
    ranks: Path, data: Data, tmp_path: Path, methods: list[str], names: tuple[str, ...]
) -> None:
    refused(
        lambda: evaluate(lens_of(MODEL), data.test, tmp_path / "out", methods=methods, ranks=ranks, **SETTINGS), *names
    )
    assert not (tmp_path / "out").exists()


def test_stores_that_do_not_fit(ranks: Path, data: Data, tmp_path: Path) -> None:
    lens, method = lens_of(MODEL), ["stored_rank:condition=probe"]
    options: dict[str, Any] = {"methods": method, "ranks": ranks, **SETTINGS}
    run = tmp_path / "out"
    refused(lambda: evaluate(lens, data.test, run, **{**options, "ranks": None}), "give ranks=STORE (--ranks)")
    refused(lambda: evaluate(lens, data.test, run, **{**options, "ranks": tmp_path / "no.zarr"}), "does not exist")
    refused(
        lambda: evaluate(lens, data.test, run, **{**options, "ranks": tmp_path / "no.zarr", "methods": "all"}),
        "does not exist",
    )
    other = classlens.load(
        zoo.build(MODEL, seed=3), class_names=list(NAMES), transform=paper_transform(zoo.VARIANTS[MODEL].size)
    )
    refused(lambda: evaluate(other, data.test, run, **options), "other weights", "ranks of this model")
    refused(lambda: evaluate(lens, data.train, run, **options), "lacks 24 of the images", "'cat/0000.png'")
    dataset = open_dataset(data.test)
    relabeled = replace(dataset, labels=np.where(np.arange(IMAGES) == 4, (dataset.labels + 1) % 3, dataset.labels))
    refused(lambda: evaluate(lens, relabeled, run, **options), dataset.names[4], "another class")
    assert not run.exists()
    # Without a label the predicted class is evaluated, of which the store has no ranks.
    unlabeled = replace(dataset, labels=np.where(np.arange(IMAGES) == 4, -1, dataset.labels))
    refused(lambda: evaluate(lens, unlabeled, run, **options), dataset.names[4], "another class")


def test_tokens_without_probes(data: Data, tmp_path: Path) -> None:
    lens = lens_of(MODEL)
    for tokens in ("cls", "image"):
        probe(lens, *data, tmp_path / tokens, sites="resid_post", tokens=tokens, **ALONE)
    options: dict[str, Any] = {"methods": ["stored_rank:condition=probe"], **SETTINGS}
    refused(
        lambda: evaluate(lens, data.test, tmp_path / "out", ranks=tmp_path / "cls" / PROBES, **options),
        "has no ranks of some image tokens",
    )
    evaluate(lens, data.test, tmp_path / "out", ranks=tmp_path / "image" / PROBES, **options)


def test_images_that_are_not_measured_yet(data: Data, tmp_path: Path) -> None:
    spec = folder(tmp_path / "images", 70, NAMES[:3])
    lens = lens_of(MODEL)

    def stop(progress: Progress) -> None:
        if progress.done == 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(lens, spec, tmp_path / "run.zarr", report=stop, **ALONE)
    options: dict[str, Any] = {"methods": ["stored_rank:condition=clean"], "ranks": tmp_path / "run.zarr", **SETTINGS}
    refused(lambda: evaluate(lens, spec, tmp_path / "out", **options), "lacks 6 of the images")
    measure(lens, spec, tmp_path / "run.zarr", **ALONE)
    assert evaluate(lens, spec, tmp_path / "out", **options).run.images == 70


def test_other_ranks_do_not_resume(ranks: Path, data: Data, tmp_path: Path) -> None:
    lens, run = lens_of(MODEL), tmp_path / "out"
    options: dict[str, Any] = {"methods": ["stored_rank:condition=probe"], **SETTINGS}
    first = evaluate(lens, data.test, run, ranks=ranks, **options)
    probe(lens, *data, tmp_path / "probes", sites=("attn_out", "resid_post"), alpha=100.0, **ALONE)
    refused(
        lambda: evaluate(lens, data.test, run, ranks=tmp_path / "probes" / PROBES, **options),
        "of other ranks",
        "the same --ranks",
    )
    again = evaluate(lens, data.test, run, ranks=ranks, **options)
    assert again.run.before == IMAGES
    assert again.scores.equals(first.scores)
    # Other methods are added without ranks.
    evaluate(lens, data.test, run, methods=["attention"], **SETTINGS)
    assert groups(run / STORE) == ["removal.attention", "removal.stored_rank:condition=probe"]


def test_a_store_of_embeddings_alone(data: Data, tmp_path: Path) -> None:
    lens = lens_of(MODEL)
    measure(lens, data.test, tmp_path / "run.zarr", sites="embed", **ALONE)
    options: dict[str, Any] = {"methods": ["stored_rank:condition=clean"], "ranks": tmp_path / "run.zarr", **SETTINGS}
    refused(lambda: evaluate(lens, data.test, tmp_path / "out", **options), "no site 'resid_post'", "embed")
