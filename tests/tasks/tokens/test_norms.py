"""Norms of tokens in a store, and the condition without the tokens of the largest norm."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch

import classlens
from classlens import KeepTokens, Lens, NoCls, measure
from classlens.models.transforms import paper_transform
from classlens.store.open_store import open_group
from tests import zoo
from tests.tasks.tiny import LOCAL, NAMES, data_in, pixels_of, states_of


def with_large_tokens(name: str) -> Lens:
    """A model whose third image token is longer than the others in most images."""
    module = zoo.build(name)
    with torch.no_grad():
        module.pos_embed[0, -2] *= 8
    return classlens.load(module, class_names=list(NAMES), transform=paper_transform((16, 16)))


def outliers_of(norms: list[float]) -> list[bool]:
    """By the definition, from the norms of the image tokens of an image."""
    middle = median(norms)
    return [norm > middle + 5 * median(abs(other - middle) for other in norms) for norm in norms]


def test_norms_are_those_of_the_states(tmp_path: Path) -> None:
    lens, data = with_large_tokens("cls"), data_in(tmp_path / "data").test
    measure(lens, data, tmp_path / "run.zarr", conditions=("clean", "no_cls"), sites=["mlp_out"], **LOCAL)
    clean, edited = (open_group(tmp_path / "run.zarr", name).load() for name in ("clean", "no_cls"))
    states = states_of(lens, data)["resid_post"]
    # The store has float32; the model is float64.
    for block, state in enumerate(states):
        np.testing.assert_allclose(clean["norm"][:, block], state.square().sum(dim=-1).sqrt(), rtol=1e-6)
    with lens.edit(NoCls()):
        own = lens.trace(pixels_of(lens, data)).states()
    np.testing.assert_allclose(edited["norm"], np.sqrt((own**2).sum("width")), rtol=1e-6)
    assert (clean["norm"] != edited["norm"]).any()


@pytest.mark.parametrize("name", ["cls", "avg"])
def test_the_condition_drops_the_outliers_of_the_last_block(tmp_path: Path, name: str) -> None:
    lens, data = with_large_tokens(name), data_in(tmp_path / "data", test=30).test
    measure(lens, data, tmp_path / "run.zarr", conditions=("clean", "outliers_removed"), **LOCAL)
    clean, found = (open_group(tmp_path / "run.zarr", group).load() for group in ("clean", "outliers_removed"))
    prefix = len(lens.view.prefix)
    assert (found["kept"].values[:, :prefix] == 1).all()
    norms = clean["norm"].values[:, -1, prefix:].tolist()
    dropped = found["kept"].values[:, prefix:] == 0
    np.testing.assert_array_equal(dropped, [outliers_of(of_image) for of_image in norms])
    affected = dropped.any(axis=1)
    assert 0 < affected.sum() < len(affected), "some images have outliers and some have none"
    with lens.edit(KeepTokens(torch.as_tensor(found["kept"].values == 1))):
        trace = lens.trace(pixels_of(lens, data))
        own = trace.trajectory(found["target"].values)
    np.testing.assert_allclose(found["trajectory_logit"], own["logit"], rtol=1e-6, atol=1e-6)
    assert np.isnan(found["norm"].values[:, :, prefix:].transpose(0, 2, 1)[dropped]).all()
    np.testing.assert_array_equal(found["rank"][~affected], clean["rank"][~affected])
    assert (found["trajectory_logit"][affected] != clean["trajectory_logit"][affected]).any()
