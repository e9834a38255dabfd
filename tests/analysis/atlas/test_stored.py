"""Stores that an atlas refuses, each with the way out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from classlens.analysis.atlas.atlas import atlas
from classlens.store.store import create_store
from tests.analysis.atlas.stores import AtlasSpec, write_atlas_store
from tests.analysis.stores import StoreSpec
from tests.refusals import refused

SMALL = AtlasSpec(clean=StoreSpec(images=4, conditions=("clean",), memories=False))


def test_stores_without_attribution(tmp_path: Path) -> None:
    refused(lambda: atlas(tmp_path / "none.zarr"), "none.zarr' does not exist")
    write_atlas_store(tmp_path / "plain.zarr", replace(SMALL, absent=("attribution",)))
    refused(lambda: atlas(tmp_path / "plain.zarr"), "has no attribution", "measure it with --attribution")
    create_store(str(tmp_path / "other.zarr"), {"command": "ablate"})
    refused(lambda: atlas(tmp_path / "other.zarr"), "is one of `classlens ablate`", "give a store of")
    write_atlas_store(tmp_path / "begun.zarr", replace(SMALL, measured={"attribution": [0, 2, 0, 0]}))
    refused(lambda: atlas(tmp_path / "begun.zarr"), "no image with an attribution yet", "go on")


def set_value(group: str, name: str, value: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        array: Any = zarr.open_group(str(path), mode="r+")[f"{group}/{name}"]
        array[0, 0, 0] = value

    return change


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "image": (set_value("head_tokens", "token_image", 4), "'token_image' has values beyond 3"),
    "token": (set_value("unit_tokens", "token", 5), "'token' has values beyond 4"),
    "class": (set_value("head_maps", "input_class", 5), "'input_class' has values beyond 4"),
    "value": (set_value("unit_tokens", "value_class", -2), "'value_class' has values beyond 4"),
    "unit": (set_value("units", "top_unit", 21), "'top_unit' has values beyond 20"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_indices_of_nothing(what: str, tmp_path: Path) -> None:
    write_atlas_store(tmp_path / "changed.zarr", SMALL)
    change, said = CHANGES[what]
    change(tmp_path / "changed.zarr")
    refused(lambda: atlas(tmp_path / "changed.zarr"), said, "expected what `classlens measure --attribution` writes")


def test_arrays_of_another_form(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    write_atlas_store(path, SMALL)
    root: Any = zarr.open_group(str(path), mode="r+")
    root["units"].attrs["units_per_block"] = 0
    refused(lambda: atlas(path), "no number of units_per_block", "measure it anew")
    root["units"].attrs["units_per_block"] = 7
    root["attribution/of"][:] = np.array(["prediction", "label", "mean"], dtype=object)
    refused(lambda: atlas(path), "'of' of 'attribution' is not label, prediction, mean")
    root["attribution/of"][:] = np.array(["label", "prediction", "mean"], dtype=object)
    atlas(path)
    del root["attribution/attention_entropy"]
    refused(lambda: atlas(path), "'attention_entropy' of 'attribution' is missing or of another form")


def test_a_group_of_other_blocks(tmp_path: Path) -> None:
    other = AtlasSpec(clean=StoreSpec(images=4, blocks=2, conditions=("clean",), memories=False), heads=(3, 3))
    write_atlas_store(tmp_path / "a.zarr", replace(SMALL, absent=("head_maps",)))
    write_atlas_store(tmp_path / "b.zarr", other)
    (tmp_path / "b.zarr" / "head_maps").rename(tmp_path / "a.zarr" / "head_maps")
    refused(lambda: atlas(tmp_path / "a.zarr"), "'head_maps' has other images or blocks than 'clean'")
