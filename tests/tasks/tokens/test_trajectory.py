"""Trajectories in a store: those of a trace of the same batch, under every condition."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

import classlens
from classlens import KeepTokens, Lens, NoCls, measure
from classlens.models.load import LoadedModel
from classlens.models.transforms import paper_transform
from classlens.store.open_store import open_group
from tests import zoo
from tests.lens.test_readouts import _made as two_readouts
from tests.tasks.tiny import LOCAL, data_in, lens_of, pixels_of
from tests.tasks.tokens.test_decoders import drawn
from tests.tasks.tokens.test_measure import with_masks

NAMES = ("top", "top_logit", "final_logit", "rank", "logit", "logsumexp", "entropy")


def _assert_same(found: xr.Dataset, own: xr.Dataset, images: slice = slice(None)) -> None:
    for name in NAMES:
        stored = found[f"trajectory_{name}"]
        assert stored.dims == own[name].dims
        # The store has float32; the model is float64.
        np.testing.assert_allclose(stored[images], own[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_every_condition_has_the_trajectory_of_a_trace(tmp_path: Path) -> None:
    lens, data = lens_of(), data_in(tmp_path / "data", test=66).test
    measure(
        lens, data, tmp_path / "run.zarr", conditions=("clean", "no_cls", "tuned_lens"), tuned_lens=drawn(), **LOCAL
    )
    pixels = pixels_of(lens, data)
    for name in ("clean", "no_cls", "tuned_lens"):
        found = open_group(tmp_path / "run.zarr", name).load()
        decoder = drawn() if name == "tuned_lens" else None
        with lens.edit(NoCls()) if name == "no_cls" else nullcontext():
            own = lens.trace(pixels).trajectory(found["target"].values, decoder=decoder)
        _assert_same(found, own)
        assert found["depth"].values.tolist() == [0, 1, 2, 3]
        np.testing.assert_array_equal(found["trajectory_top"][:, -1, 0], found["prediction"])
        values = [found[f"trajectory_{key}"] for key in NAMES]
        assert sum(array[0].nbytes for array in values) == 64 * 4, "832 bytes for 12 blocks"
    clean, tuned = (open_group(tmp_path / "run.zarr", name).load() for name in ("clean", "tuned_lens"))
    assert (clean["trajectory_logit"].values != tuned["trajectory_logit"].values).any()


@pytest.mark.parametrize("model", ["cls", "avg"])
def test_removed_tokens(tmp_path: Path, model: str) -> None:
    lens, data = with_masks(tmp_path, model)
    measure(lens, data, tmp_path / "run.zarr", conditions=("clean", "context_removed"), **LOCAL)
    found = open_group(tmp_path / "run.zarr", "context_removed").load()
    with lens.edit(KeepTokens(torch.as_tensor(found["kept"].values == 1))):
        own = lens.trace(pixels_of(lens, data)).trajectory(found["target"].values)
    _assert_same(found, own)
    assert (found["trajectory_rank"] >= 0).all()


@pytest.mark.parametrize("model", ["avg", "[CLS] beside a mean"])
def test_an_image_of_which_nothing_is_left_has_none(tmp_path: Path, model: str) -> None:
    """One readout without tokens is enough: the sum of both is not defined."""
    lens, data = with_masks(tmp_path, "avg")
    if model != "avg":
        view = two_readouts("split head")[1].view
        lens = Lens(LoadedModel(view, lens.preprocessing, lens.classes))
    root = Path(data.removeprefix("imagenet-s:")) / "ImageNetS919/validation-segmentation"
    Image.new("RGB", (48, 40)).save(min(root.rglob("*.png")))  # the class is nowhere
    measure(lens, data, tmp_path / "run.zarr", conditions=("clean", "context_removed"), **LOCAL)
    found = open_group(tmp_path / "run.zarr", "context_removed").load()
    assert (found["trajectory_rank"][0] == -1).all()
    assert (found["trajectory_top"][0] == -1).all()
    assert np.isnan(found["trajectory_entropy"][0]).all()
    assert (found["trajectory_rank"][1:] >= 0).all()


def without_trajectories(store: Path) -> None:
    """The store as an earlier version wrote it."""
    for group in store.iterdir():
        for array in group.glob("*") if group.is_dir() else ():
            if array.name.startswith("trajectory_") or array.name in ("depth", "place"):
                shutil.rmtree(array)


def test_a_store_of_an_earlier_version_goes_on_without(tmp_path: Path) -> None:
    lens, data = lens_of(dtype=torch.float32), data_in(tmp_path / "data").test
    out = tmp_path / "run.zarr"
    measure(lens, data, out, **LOCAL)
    without_trajectories(out)
    measure(lens, data, out, conditions=("clean", "no_cls"), **LOCAL)
    for name in ("clean", "no_cls"):
        assert not [key for key in open_group(out, name).variables if str(key).startswith("trajectory")]
    assert (open_group(out, "no_cls")["measured"] == 1).all()


def test_few_classes_keep_fewer_places(tmp_path: Path) -> None:
    module = zoo.build("cls", torch.float32)
    module.head = torch.nn.Linear(24, 3)
    lens = classlens.load(module, class_names=["cat", "dog", "frog"], transform=paper_transform((16, 16)))
    measure(lens, data_in(tmp_path / "data").test, tmp_path / "run.zarr", **LOCAL)
    assert open_group(tmp_path / "run.zarr", "clean").sizes["place"] == 3
