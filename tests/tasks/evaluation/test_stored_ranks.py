"""Ranks of a store as importance: by loops, through token removal, and what cannot be taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import classlens
from classlens import Lens, evaluate, measure, probe
from classlens.data.class_mapping import map_classes
from classlens.data.open_dataset import open_dataset
from classlens.lens.tuned_lens import TunedLens
from classlens.models.transforms import paper_transform
from classlens.store.open_store import open_group
from classlens.tasks.evaluation import stored_ranks as stored
from classlens.tasks.evaluation.evaluate import STORE
from classlens.tasks.evaluation.importance import parse_methods
from classlens.tasks.evaluation.registry import METRICS
from classlens.tasks.probes.probe import STORE as PROBES
from tests import zoo
from tests.data.pictures import folder, groups
from tests.refusals import refused
from tests.tasks.tiny import NAMES, Data, data_in, labels_of, lens_of

TOKENS, BLOCKS, IMAGES = 6, 3, 20
MODEL = "cls_not_square"
ALONE: dict[str, Any] = {"workers": 0}
SOME: dict[str, Any] = {"metrics": ["removal"], "steps": None, "permutations": 2, **ALONE}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return data_in(tmp_path_factory.mktemp("data"), train=24, test=IMAGES)


@pytest.fixture(scope="module")
def ranks(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probes")
    lens = lens_of(MODEL)
    made = TunedLens.identity(lens.view)
    made.bias.normal_()
    given: dict[str, Any] = {"sites": ("attn_out", "resid_post"), **ALONE}
    probe(lens, *data, out, **given, tuned_lens=made)
    probe(lens, *data, out, **given, kind="pooled")
    return out / PROBES


def importance(lens: Lens, ranks: Path, data: str, **options: Any) -> Any:
    dataset = open_dataset(data)
    labels = map_classes(dataset, lens.classes, model_name="tiny")
    return stored.stored_importance(ranks, dataset, lens, labels, **options)


def by_loops(ranks: Path, condition: str, site: str) -> list[list[float]]:
    found = open_group(ranks, condition).load()
    place = [str(one) for one in found["site"].values].index(site)
    values = []
    for image in range(found.sizes["image"]):
        row = []
        for token in range(found.sizes["token"]):
            if found["token_kind"].values[token] == "image":
                row.append(
                    -float(sum(int(found["rank"].values[image, place, block, token]) for block in range(BLOCKS)))
                )
        values.append(row)
    return values


@pytest.mark.parametrize("site", ["resid_post", "attn_out"])
@pytest.mark.parametrize("condition", ["clean", "probe", "probe_pooled", "tuned_lens"])
def test_it_is_minus_the_sum_of_ranks(ranks: Path, data: Data, condition: str, site: str) -> None:
    found = importance(lens_of(MODEL), ranks, data.test, condition=condition, site=site)
    assert found.shape == (IMAGES, TOKENS)
    assert found.dtype == np.float32
    assert found.tolist() == by_loops(ranks, condition, site)
    assert len(np.unique(found)) > 5


def test_images_are_found_by_their_names(ranks: Path, data: Data) -> None:
    lens, dataset = lens_of(MODEL), open_dataset(data.test)
    every = importance(lens, ranks, data.test, condition="probe")
    some = dataset.subset(np.array([7, 3, 11]))
    labels = np.array(labels_of(data.test))[[7, 3, 11]]
    found = stored.stored_importance(ranks, some, lens, labels, condition="probe")
    np.testing.assert_array_equal(found, every[[7, 3, 11]])


def test_tokens_are_removed_in_that_order(ranks: Path, data: Data, tmp_path: Path) -> None:
    """One image and number of tokens at a time, through an edited model."""
    lens, dataset = lens_of(MODEL), open_dataset(data.test)
    name = "stored_rank:condition=probe"
    evaluate(lens, data.test, tmp_path / "out", methods=[name], ranks=ranks, **SOME)
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
                    right = int(lens.view.run(pixels).argmax()) == labels[image]
                assert store["correct"].values[image, direction, column] == right, (image, direction, number)
                hits += right
    assert hits > 10


@pytest.mark.slow
def test_all_adds_every_probe_and_tuned_lens(ranks: Path, data: Data, tmp_path: Path) -> None:
    given: dict[str, Any] = {"steps": 2, "permutations": 1, "limit": 4, **ALONE}
    found = evaluate(lens_of(MODEL), data.test, tmp_path / "out", ranks=ranks, **given)
    names = {f"stored_rank:condition={name}" for name in ("tuned_lens", "probe", "probe_pooled")}
    scores = found.scores
    assert {one for one in scores["method"] if one.startswith("stored")} == names
    for name in names:
        # Not those that explain other images, other classes or other weights.
        assert set(scores[scores.method == name]["metric"]) == {"removal", "masking"}
    assert set(scores[scores.method == "chefer"]["metric"]) > {"removal", "masking"}
    without = evaluate(lens_of(MODEL), data.test, tmp_path / "other", **given)
    assert not any(one.startswith("stored") for one in without.scores["method"])


def test_masks_are_held_against_ranks(data: Data) -> None:
    (method,) = parse_methods(["stored_rank:condition=probe:site=attn_out"])
    assert (method.name, method.options) == ("stored_rank", {"condition": "probe", "site": "attn_out"})
    taken = {name for name, metric in METRICS.items() if metric.takes(replace(method, stored=np.zeros((1, 1))))}
    assert taken == {"removal", "masking", "segmentation"}


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
def test_what_is_no_method_of_a_store(
    ranks: Path, data: Data, tmp_path: Path, methods: list[str], names: tuple[str, ...]
) -> None:
    refused(lambda: evaluate(lens_of(MODEL), data.test, tmp_path / "out", methods=methods, ranks=ranks, **SOME), *names)
    assert not (tmp_path / "out").exists()


def test_stores_that_do_not_fit(ranks: Path, data: Data, tmp_path: Path) -> None:
    lens, method = lens_of(MODEL), ["stored_rank:condition=probe"]
    given: dict[str, Any] = {"methods": method, "ranks": ranks, **SOME}
    run = tmp_path / "out"
    refused(lambda: evaluate(lens, data.test, run, **{**given, "ranks": None}), "give ranks=STORE (--ranks)")
    refused(lambda: evaluate(lens, data.test, run, **{**given, "ranks": tmp_path / "no.zarr"}), "does not exist")
    refused(
        lambda: evaluate(lens, data.test, run, **{**given, "ranks": tmp_path / "no.zarr", "methods": "all"}),
        "does not exist",
    )
    other = classlens.load(
        zoo.build(MODEL, seed=3), class_names=list(NAMES), transform=paper_transform(zoo.VARIANTS[MODEL].size)
    )
    refused(lambda: evaluate(other, data.test, run, **given), "other weights", "ranks of this model")
    refused(lambda: evaluate(lens, data.train, run, **given), "lacks 24 of the images", "'cat/0000.png'")
    dataset = open_dataset(data.test)
    turned = replace(dataset, labels=np.where(np.arange(IMAGES) == 4, (dataset.labels + 1) % 3, dataset.labels))
    refused(lambda: evaluate(lens, turned, run, **given), dataset.names[4], "another class")
    assert not run.exists()
    # An image without a class is not looked up.
    unlabeled = replace(dataset, labels=np.where(np.arange(IMAGES) == 4, -1, dataset.labels))
    found = evaluate(lens, unlabeled, run, **given)
    assert set(found.scores["images"]) == {IMAGES - 1}


def test_tokens_that_no_probe_reads(data: Data, tmp_path: Path) -> None:
    lens = lens_of(MODEL)
    for tokens in ("cls", "image"):
        probe(lens, *data, tmp_path / tokens, sites="resid_post", tokens=tokens, **ALONE)
    given: dict[str, Any] = {"methods": ["stored_rank:condition=probe"], **SOME}
    refused(
        lambda: evaluate(lens, data.test, tmp_path / "out", ranks=tmp_path / "cls" / PROBES, **given),
        "does not read all image tokens",
    )
    evaluate(lens, data.test, tmp_path / "out", ranks=tmp_path / "image" / PROBES, **given)


def test_images_that_are_not_measured_yet(data: Data, tmp_path: Path) -> None:
    spec = folder(tmp_path / "images", 70, NAMES[:3])
    lens = lens_of(MODEL)

    def stop(now: Any) -> None:
        if now.done == 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(lens, spec, tmp_path / "run.zarr", report=stop, **ALONE)
    given: dict[str, Any] = {"methods": ["stored_rank:condition=clean"], "ranks": tmp_path / "run.zarr", **SOME}
    refused(lambda: evaluate(lens, spec, tmp_path / "out", **given), "lacks 6 of the images")
    measure(lens, spec, tmp_path / "run.zarr", **ALONE)
    assert evaluate(lens, spec, tmp_path / "out", **given).run.images == 70


def test_other_ranks_do_not_go_on(ranks: Path, data: Data, tmp_path: Path) -> None:
    lens, run = lens_of(MODEL), tmp_path / "out"
    given: dict[str, Any] = {"methods": ["stored_rank:condition=probe"], **SOME}
    first = evaluate(lens, data.test, run, ranks=ranks, **given)
    probe(lens, *data, tmp_path / "probes", sites=("attn_out", "resid_post"), alpha=100.0, **ALONE)
    refused(
        lambda: evaluate(lens, data.test, run, ranks=tmp_path / "probes" / PROBES, **given),
        "of other ranks",
        "the same --ranks",
    )
    again = evaluate(lens, data.test, run, ranks=ranks, **given)
    assert again.run.before == IMAGES
    assert again.scores.equals(first.scores)
    # Other methods need no ranks to be added.
    evaluate(lens, data.test, run, methods=["attention"], **SOME)
    assert groups(run / STORE) == ["removal.attention", "removal.stored_rank:condition=probe"]


def test_a_store_of_embeddings_alone(data: Data, tmp_path: Path) -> None:
    lens = lens_of(MODEL)
    measure(lens, data.test, tmp_path / "run.zarr", sites="embed", **ALONE)
    given: dict[str, Any] = {"methods": ["stored_rank:condition=clean"], "ranks": tmp_path / "run.zarr", **SOME}
    refused(lambda: evaluate(lens, data.test, tmp_path / "out", **given), "no site 'resid_post'", "embed")
