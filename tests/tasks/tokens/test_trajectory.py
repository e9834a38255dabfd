"""Trajectories in a store: those of a trace of the same batch, under every condition."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from PIL import Image
from typer.testing import CliRunner

import classlens
from classlens import KeepTokens, Lens, NoCls, analyze, measure
from classlens.cli import app
from classlens.models.load import LoadedModel
from classlens.models.transforms import paper_transform
from classlens.store.open_store import open_group
from tests import zoo
from tests.lens.test_readouts import _made as two_readouts
from tests.refusals import refused
from tests.tasks import tiny
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


def without_later_arrays(store: Path) -> None:
    """The store as a version without trajectories and norms wrote it."""
    for group in store.iterdir():
        for array in group.glob("*") if group.is_dir() else ():
            if array.name.startswith("trajectory_") or array.name in ("depth", "place", "norm"):
                shutil.rmtree(array)


def test_a_store_of_an_earlier_version_goes_on_without(tmp_path: Path) -> None:
    lens, data = lens_of(dtype=torch.float32), data_in(tmp_path / "data").test
    out = tmp_path / "run.zarr"
    measure(lens, data, out, **LOCAL)
    without_later_arrays(out)
    measure(lens, data, out, conditions=("clean", "no_cls"), **LOCAL)
    for name in ("clean", "no_cls"):
        assert not [key for key in open_group(out, name).variables if str(key).startswith(("trajectory", "norm"))]
    assert (open_group(out, "no_cls")["measured"] == 1).all()


GROUPS = {"cat": "pet", "dog": "pet", "other 0": "rest", "other 1": "rest", "other 2": "one"}
"""Frogs, which the data have, are in none."""


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    (tmp_path / "groups.csv").write_text("".join(f"{name},{group}\n" for name, group in GROUPS.items()))
    return tmp_path / "groups.csv"


def test_every_condition_has_the_trajectory_of_groups(tmp_path: Path, groups: Path) -> None:
    lens, data = lens_of(), data_in(tmp_path / "data", test=66).test
    given: dict[str, Any] = {"tuned_lens": drawn(), "conditions": ("clean", "no_cls", "tuned_lens"), **LOCAL}
    measure(lens, data, tmp_path / "run.zarr", label_groups=groups, **given)
    measure(lens, data, tmp_path / "plain.zarr", **given)
    pixels = pixels_of(lens, data)
    for name in ("clean", "no_cls", "tuned_lens"):
        found = open_group(tmp_path / "run.zarr", name).load()
        decoder = drawn() if name == "tuned_lens" else None
        with lens.edit(NoCls()) if name == "no_cls" else nullcontext():
            own = lens.trace(pixels).trajectory(found["target"].values, decoder=decoder, groups=GROUPS)
        for key in NAMES:
            stored = found[f"group_trajectory_{key}"]
            assert stored.dims == tuple("group_place" if dim == "place" else dim for dim in own[key].dims)
            np.testing.assert_allclose(stored, own[key], rtol=1e-6, atol=1e-6, err_msg=key)
        assert found["group_name"].values.tolist() == ["pet", "rest", "one"]
        assert found["class_group"].values.tolist() == [0, 0, -1, 1, 1, 2, *[-1] * 5]
        frog = np.array(["frog" in str(image) for image in found["image"].values])
        assert frog.any()
        np.testing.assert_array_equal(found["group_trajectory_rank"] == -1, np.tile(frog[:, None], 4))
        plain = open_group(tmp_path / "plain.zarr", name).load()
        assert not [key for key in plain.variables if "group" in str(key)]
        kept = found[list(plain.variables)].drop_vars("class_group")
        xr.testing.assert_identical(kept.drop_attrs(), plain.drop_attrs())
    values = [open_group(tmp_path / "run.zarr", "clean")[f"group_trajectory_{key}"] for key in NAMES]
    assert sum(array[0].nbytes for array in values) == 44 * 4


def test_an_edited_away_image_has_no_trajectory_of_groups(tmp_path: Path) -> None:
    lens, data = with_masks(tmp_path, "avg")
    root = Path(data.removeprefix("imagenet-s:")) / "ImageNetS919/validation-segmentation"
    Image.new("RGB", (48, 40)).save(min(root.rglob("*.png")))
    given: dict[str, Any] = {"label_groups": {index: str(index % 2) for index in range(11)}, **LOCAL}
    measure(lens, data, tmp_path / "run.zarr", conditions=("clean", "context_removed"), **given)
    found = open_group(tmp_path / "run.zarr", "context_removed").load()
    assert (found["group_trajectory_top"][0] == -1).all()
    assert np.isnan(found["group_trajectory_entropy"][0]).all()
    assert (found["group_trajectory_rank"][1:] >= 0).all()


def test_a_store_keeps_its_groups(tmp_path: Path, groups: Path) -> None:
    lens, data = lens_of(dtype=torch.float32), data_in(tmp_path / "data").test
    out, says = tmp_path / "run.zarr", "begun with other label groups, or none"
    measure(lens, data, out, label_groups=groups, **LOCAL)
    # The same groups, listed in another order and by index, resume it.
    same = {tiny.NAMES.index(name): group for name, group in reversed(GROUPS.items())}
    assert measure(lens, data, out, label_groups=same, conditions=("clean", "no_cls"), **LOCAL).images == 9
    assert (open_group(out, "no_cls")["measured"] == 1).all()
    assert "group_trajectory_rank" in open_group(out, "no_cls")
    refused(lambda: measure(lens, data, out, **LOCAL), says)
    for other in ({**GROUPS, "frog": "pet"}, {**GROUPS, "other 2": "two"}):
        refused(partial(measure, lens, data, out, label_groups=other, **LOCAL), says)
    measure(lens, data, tmp_path / "plain.zarr", **LOCAL)
    refused(lambda: measure(lens, data, tmp_path / "plain.zarr", label_groups=groups, **LOCAL), says)
    bad = tmp_path / "bad.csv"
    bad.write_text("cat,pet\ncow,farm\n")
    refused(lambda: measure(lens, data, tmp_path / "none.zarr", label_groups=bad, **LOCAL), "bad.csv', line 2", "'cow'")
    assert not (tmp_path / "none.zarr").exists()


def test_experiments_have_rows_of_groups(tmp_path: Path, groups: Path) -> None:
    lens, data = lens_of(dtype=torch.float32), data_in(tmp_path / "data").test
    measure(lens, data, tmp_path / "run.zarr", label_groups=groups, **LOCAL)
    measure(lens, data, tmp_path / "plain.zarr", **LOCAL)
    names = ["decision", "dynamics", "stability"]
    both, plain = (analyze(tmp_path / f"{name}.zarr", experiments=names).tables for name in ("run", "plain"))
    for name in names:
        assert both[name].query("classes == 'groups' and outcome == 'all'")["images"].unique().tolist() == [6]
        pd.testing.assert_frame_equal(both[name].query("classes == 'classes'").reset_index(drop=True), plain[name])


def test_the_command(tmp_path: Path, groups: Path) -> None:
    data = data_in(tmp_path / "data", test=3).test
    words = ["measure", "--model", "builtin:cifar10", "--data", data, "--out", str(tmp_path / "run.zarr")]
    groups.write_text("cat,pet\ndog,pet\nfrog,frog\n")
    run = CliRunner().invoke(app, [*words, "--workers", "0", "--label-groups", str(groups)])
    assert run.exit_code == 0, run.output
    assert open_group(tmp_path / "run.zarr", "clean")["group_name"].values.tolist() == ["pet", "frog"]
    for text, part in (("cat,pet\n", "single group"), ("cat,pet\ncow,x\n", "'cow'")):
        groups.write_text(text)
        run = CliRunner().invoke(app, [*words[:-1], str(tmp_path / "no.zarr"), "--label-groups", str(groups)])
        assert run.exit_code == 2, run.output
        assert part in run.output.replace("\n", " ")
    assert not (tmp_path / "no.zarr").exists()


def test_few_classes_keep_fewer_places(tmp_path: Path) -> None:
    module = zoo.build("cls", torch.float32)
    module.head = torch.nn.Linear(24, 3)
    lens = classlens.load(module, class_names=["cat", "dog", "frog"], transform=paper_transform((16, 16)))
    measure(lens, data_in(tmp_path / "data").test, tmp_path / "run.zarr", **LOCAL)
    assert open_group(tmp_path / "run.zarr", "clean").sizes["place"] == 3
