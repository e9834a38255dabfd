"""What a store lacks, and its images part by part."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from xarray.backends.zarr import ZarrArrayWrapper
from xarray.core.indexing import ExplicitIndexer

from classlens.analysis.measured_store import MeasuredStore, Requirement, open_measured_stores
from classlens.analysis.registry import EXPERIMENTS
from tests.analysis.literal import split_into_shards
from tests.analysis.stores import StoreSpec, write_store
from tests.refusals import refused


def opened(path: Path, **spec: object) -> MeasuredStore:
    write_store(path / "made.zarr", StoreSpec(**spec))  # type: ignore[arg-type]
    return MeasuredStore(path / "made.zarr")


BARE = {"conditions": ("clean",), "memories": False, "labels": False, "prefix": (), "sites": ("resid_post",)}
LACKING = {
    "condition": (Requirement("no_cls"), "condition no_cls was not measured: add --conditions no_cls"),
    "either": (
        Requirement(any_condition=("self_only", "no_cls")),
        "neither condition self_only nor no_cls was measured: add --conditions self_only,no_cls",
    ),
    "site": (
        Requirement(sites=("mlp_out",)),
        "site mlp_out was not measured: measure anew with --sites that name it, or without --sites",
    ),
    "memories": (Requirement(memories=True), "memories were not measured: measure anew with --memories"),
    "parameters": (Requirement(parameters=True), "the parameters were not measured: measure anew with --memories"),
    "twin": (
        Requirement(twin_parameters=True),
        "the random twin's parameters were not measured: measure a model by its name with --memories",
    ),
    "masks": (
        Requirement(masks=True),
        "the images have no masks: measure them with --masks, or data that has masks, such as imagenet-s:ROOT",
    ),
    "cls": (Requirement(cls=True), "the model has no [CLS] token"),
    "labels": (Requirement(labels=True), "the images have no labels: measure a data set that has them"),
}


@pytest.mark.parametrize("what", LACKING)
def test_reasons_with_the_flag_that_helps(what: str, tmp_path: Path) -> None:
    need, reason = LACKING[what]
    assert opened(tmp_path, **BARE).lacks(need) == reason


def test_what_is_there_in_part(tmp_path: Path) -> None:
    """One of either, parameters without the twin's, and a mask and a label in the second shard alone."""
    mask, label = np.full((70, 5), -1, dtype=np.int8), np.full(70, -1, dtype=np.int16)
    mask[69, 4], label[69] = 0, 2
    facts = {"clean": {"class_token": mask, "label": label}}
    store = opened(tmp_path, images=70, conditions=("clean", "no_cls"), twin_parameters=False, facts=facts)
    lacking = {what for what, (need, _) in LACKING.items() if store.lacks(need)}
    assert lacking == {"twin"}
    assert store.lacks(Requirement("self_only", optional=True)) is not None


def test_a_full_store_lacks_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path, masks=True, conditions=("clean", "random_init", "self_only", "no_cls"))
    assert [what for what, (need, _) in LACKING.items() if store.lacks(need)] == []


def test_parallel_blocks_have_no_resid_mid_and_no_flag_would_give_them_one(tmp_path: Path) -> None:
    store = opened(tmp_path, sites=("attn_out", "mlp_out", "resid_post"))
    assert store.lacks(Requirement(sites=("resid_mid",))) == "blocks with parallel branches have no resid_mid"


def test_parts_join_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split_into_shards(monkeypatch)
    measured = [1] * 150
    measured[3], measured[70], measured[149] = 2, 0, 2
    written = write_store(
        tmp_path / "a.zarr", StoreSpec(images=150, measured={"clean": measured, "random_init": [1] * 150})
    )
    store = MeasuredStore(tmp_path / "a.zarr")
    batches = list(store.batches())
    assert [batch.images for batch in batches] == [63, 63, 21]
    assert (store.images, store.total_images) == (147, 150)
    rows = np.flatnonzero(np.array(measured) == 1)
    for name, where, wanted in (
        ("rank", {"site": "mlp_out"}, written["clean"]["rank"][rows, 2]),
        (
            "key_value_agreement",
            {"sublayer": "mlp", "by": "value"},
            written["clean"]["key_value_agreement"][rows, 1, 1],
        ),
        ("target", {}, written["clean"]["target"][rows]),
    ):
        np.testing.assert_array_equal(np.concatenate([batch.values(name, **where) for batch in batches]), wanted)
    entering = np.concatenate([batch.block_input("logit") for batch in batches])
    np.testing.assert_array_equal(entering[:, 0], written["clean"]["embed_logit"][rows])
    np.testing.assert_array_equal(entering[:, 1:], written["clean"]["logit"][rows, 3, :-1])


def test_a_shard_without_a_measured_image_is_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split_into_shards(monkeypatch)
    measured = {"clean": [1] * 64 + [0, 2] * 32 + [1] * 2}
    store = opened(tmp_path, images=130, conditions=("clean",), measured=measured)
    assert [batch.images for batch in store.batches()] == [64, 2]


def test_a_mean_over_tokens_is_none_where_the_condition_is_not_there(tmp_path: Path) -> None:
    (batch,) = opened(tmp_path, images=3, measured={"random_init": [1, 2, 0]}).batches()
    means = batch.token_mean(np.ones((3, 2, 5)), "all", "random_init")
    np.testing.assert_array_equal(means, [[1, 1], [np.nan, np.nan], [np.nan, np.nan]])


def test_a_variable_is_read_once(tmp_path: Path) -> None:
    (batch,) = opened(tmp_path).batches()
    assert batch.values("rank") is batch.values("rank")


def test_all_experiments_read_each_variable_of_a_part_once_and_no_more_than_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_into_shards(monkeypatch)
    conditions = ("clean", "random_init", "self_only", "no_cls", "context_removed", "class_removed")
    store = opened(tmp_path, images=70, masks=True, conditions=conditions)
    read: list[tuple[str, tuple[object, ...]]] = []
    plain = ZarrArrayWrapper.__getitem__

    facts = {"measured", *StoreSpec().axes.schema().variables}

    def counted(self: ZarrArrayWrapper, key: ExplicitIndexer) -> object:
        if PurePosixPath(self._array.path).name in facts:
            read.append((self._array.path, key.tuple))
        return plain(self, key)

    monkeypatch.setattr(ZarrArrayWrapper, "__getitem__", counted)
    for batch, images in zip(store.batches(), (slice(0, 64), slice(64, 70)), strict=True):
        read.clear()
        for experiment in EXPERIMENTS.values():
            experiment.update(batch)
        paths = [path for path, _ in read]
        assert {"clean/rank", "random_init/memory_match", "class_removed/kept"} <= set(paths)
        assert len(paths) == len(set(paths))
        for path, (first, *_) in read:
            assert isinstance(first, slice), path
            assert range(70)[first] == range(70)[images], path


def test_stores_that_cannot_be_analyzed(tmp_path: Path) -> None:
    refused(lambda: MeasuredStore(tmp_path / "none.zarr"), "none.zarr' does not exist")
    refused(lambda: open_measured_stores([]), "no store was given")
    write_store(tmp_path / "twin.zarr", StoreSpec(conditions=("random_init",)))
    refused(lambda: MeasuredStore(tmp_path / "twin.zarr"), "has no condition 'clean'", "--conditions clean")
    write_store(tmp_path / "empty.zarr", StoreSpec(images=3, measured={"clean": [0, 2, 0]}))
    refused(lambda: MeasuredStore(tmp_path / "empty.zarr"), "has no measured image yet")


def test_names_of_several_stores(tmp_path: Path) -> None:
    for name, model in (("a", "vit"), ("b", "vit"), ("c", "deit")):
        write_store(tmp_path / f"{name}.zarr", StoreSpec(model=model))
    paths = [tmp_path / f"{name}.zarr" for name in "abc"]
    assert [store.model for store in open_measured_stores(paths)] == ["vit (a)", "vit (b)", "deit"]
    refused(lambda: open_measured_stores([paths[0], paths[0]]), "give each store once")
