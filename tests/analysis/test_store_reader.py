"""What a store lacks, and its images part by part."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from xarray.backends.zarr import ZarrArrayWrapper
from xarray.core.indexing import ExplicitIndexer

from classlens.analysis.registry import EXPERIMENTS
from classlens.analysis.store_reader import Need, StoreReader, open_readers
from classlens.store.schema import variables
from tests.analysis.literal import split_into_shards
from tests.analysis.stores import Made, write_store
from tests.refusals import refused


def made(path: Path, **how: object) -> StoreReader:
    write_store(path / "made.zarr", Made(**how))  # type: ignore[arg-type]
    return StoreReader(path / "made.zarr")


BARE = {"conditions": ("clean",), "memories": False, "labels": False, "prefix": (), "sites": ("resid_post",)}
LACKING = {
    "condition": (Need("no_cls"), "condition no_cls was not measured: add --conditions no_cls"),
    "either": (
        Need(either=("self_only", "no_cls")),
        "neither condition self_only nor no_cls was measured: add --conditions self_only,no_cls",
    ),
    "site": (
        Need(sites=("mlp_out",)),
        "site mlp_out was not measured: measure anew with --sites that name it, or without --sites",
    ),
    "memories": (Need(memories=True), "memories were not measured: measure anew with --memories"),
    "parameters": (Need(parameters=True), "the parameters were not looked at: measure anew with --memories"),
    "twin": (
        Need(twin_parameters=True),
        "the random twin's parameters were not looked at: measure a model by its name with --memories",
    ),
    "masks": (
        Need(masks=True),
        "the images have no masks: measure a data set that has them, such as --data imagenet-s:ROOT",
    ),
    "cls": (Need(cls=True), "the model has no [CLS] token"),
    "labels": (Need(labels=True), "the images have no labels: measure a data set that has them"),
}


@pytest.mark.parametrize("what", LACKING)
def test_reasons_with_the_flag_that_helps(what: str, tmp_path: Path) -> None:
    need, reason = LACKING[what]
    assert made(tmp_path, **BARE).lacks(need) == reason


def test_what_is_there_in_part(tmp_path: Path) -> None:
    """One of either, parameters without the twin's, and a mask and a label in the second shard alone."""
    mask, label = np.full((70, 5), -1, dtype=np.int8), np.full(70, -1, dtype=np.int16)
    mask[69, 4], label[69] = 0, 2
    facts = {"clean": {"class_token": mask, "label": label}}
    store = made(tmp_path, images=70, conditions=("clean", "no_cls"), twin_parameters=False, facts=facts)
    lacking = {what for what, (need, _) in LACKING.items() if store.lacks(need)}
    assert lacking == {"twin"}
    assert store.lacks(Need("self_only", optional=True)) is not None


def test_a_full_store_lacks_nothing(tmp_path: Path) -> None:
    store = made(tmp_path, masks=True, conditions=("clean", "random_init", "self_only", "no_cls"))
    assert [what for what, (need, _) in LACKING.items() if store.lacks(need)] == []


def test_parallel_blocks_have_no_resid_mid_and_no_flag_would_give_them_one(tmp_path: Path) -> None:
    store = made(tmp_path, sites=("attn_out", "mlp_out", "resid_post"))
    assert store.lacks(Need(sites=("resid_mid",))) == "blocks with parallel branches have no resid_mid"


def test_parts_join_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split_into_shards(monkeypatch)
    measured = [1] * 150
    measured[3], measured[70], measured[149] = 2, 0, 2
    written = write_store(tmp_path / "a.zarr", Made(images=150, measured={"clean": measured, "random_init": [1] * 150}))
    store = StoreReader(tmp_path / "a.zarr")
    parts = list(store.parts())
    assert [part.images for part in parts] == [63, 63, 21]
    assert (store.images, store.total) == (147, 150)
    kept = np.flatnonzero(np.array(measured) == 1)
    for name, where, wanted in (
        ("rank", {"site": "mlp_out"}, written["clean"]["rank"][kept, 2]),
        (
            "key_value_agreement",
            {"sublayer": "mlp", "by": "value"},
            written["clean"]["key_value_agreement"][kept, 1, 1],
        ),
        ("target", {}, written["clean"]["target"][kept]),
    ):
        np.testing.assert_array_equal(np.concatenate([part.of(name, **where) for part in parts]), wanted)
    entering = np.concatenate([part.entering("logit") for part in parts])
    np.testing.assert_array_equal(entering[:, 0], written["clean"]["embed_logit"][kept])
    np.testing.assert_array_equal(entering[:, 1:], written["clean"]["logit"][kept, 3, :-1])


def test_a_shard_without_a_measured_image_is_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split_into_shards(monkeypatch)
    measured = {"clean": [1] * 64 + [0, 2] * 32 + [1] * 2}
    store = made(tmp_path, images=130, conditions=("clean",), measured=measured)
    assert [part.images for part in store.parts()] == [64, 2]


def test_a_mean_over_tokens_is_none_where_the_condition_is_not_there(tmp_path: Path) -> None:
    (part,) = made(tmp_path, images=3, measured={"random_init": [1, 2, 0]}).parts()
    found = part.mean(np.ones((3, 2, 5)), "all", "random_init")
    np.testing.assert_array_equal(found, [[1, 1], [np.nan, np.nan], [np.nan, np.nan]])


def test_a_variable_is_read_once(tmp_path: Path) -> None:
    (part,) = made(tmp_path).parts()
    assert part.of("rank") is part.of("rank")


def test_all_experiments_read_each_variable_of_a_part_once_and_no_more_than_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_into_shards(monkeypatch)
    conditions = ("clean", "random_init", "self_only", "no_cls", "context_removed", "class_removed")
    store = made(tmp_path, images=70, masks=True, conditions=conditions)
    read: list[tuple[str, tuple[object, ...]]] = []
    plain = ZarrArrayWrapper.__getitem__

    facts = {"measured", *variables(Made().axes)}

    def counted(self: ZarrArrayWrapper, key: ExplicitIndexer) -> object:
        if PurePosixPath(self._array.path).name in facts:
            read.append((self._array.path, key.tuple))
        return plain(self, key)

    monkeypatch.setattr(ZarrArrayWrapper, "__getitem__", counted)
    for part, images in zip(store.parts(), (slice(0, 64), slice(64, 70)), strict=True):
        read.clear()
        for experiment in EXPERIMENTS.values():
            experiment.update(part)
        paths = [path for path, _ in read]
        assert {"clean/rank", "random_init/memory_match", "class_removed/kept"} <= set(paths)
        assert len(paths) == len(set(paths))
        for path, (first, *_) in read:
            assert isinstance(first, slice), path
            assert range(70)[first] == range(70)[images], path


def test_stores_that_cannot_be_analyzed(tmp_path: Path) -> None:
    refused(lambda: StoreReader(tmp_path / "none.zarr"), "none.zarr' does not exist")
    refused(lambda: open_readers([]), "no store was given")
    write_store(tmp_path / "twin.zarr", Made(conditions=("random_init",)))
    refused(lambda: StoreReader(tmp_path / "twin.zarr"), "has no condition 'clean'", "--conditions clean")
    write_store(tmp_path / "empty.zarr", Made(images=3, measured={"clean": [0, 2, 0]}))
    refused(lambda: StoreReader(tmp_path / "empty.zarr"), "has no measured image yet")


def test_names_of_several_stores(tmp_path: Path) -> None:
    for name, model in (("a", "vit"), ("b", "vit"), ("c", "deit")):
        write_store(tmp_path / f"{name}.zarr", Made(model=model))
    paths = [tmp_path / f"{name}.zarr" for name in "abc"]
    assert [store.model for store in open_readers(paths)] == ["vit (a)", "vit (b)", "deit"]
    refused(lambda: open_readers([paths[0], paths[0]]), "give each store once")
