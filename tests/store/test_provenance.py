"""Digests and settings that identify what a result was made from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import classlens
from classlens.models.digest import weights_digest
from classlens.models.transforms import Preprocessing, paper_transform
from classlens.store.provenance import require_same, transform_digest, transform_pixels
from tests import zoo
from tests.refusals import refused


@pytest.mark.parametrize("name", ["blocks.1.mlp.fc2.bias", "head.weight", "pos_embed", "a buffer"])
def test_the_digest_covers_every_weight_and_buffer(name: str) -> None:
    model: Any = zoo.build("cls")
    model.register_buffer("angles", torch.ones(3), persistent=False)
    view = classlens.load(model).view
    before = weights_digest(view)
    assert weights_digest(classlens.load(model).view) == before
    tensor = model.angles if name == "a buffer" else dict(model.named_parameters())[name]
    with torch.no_grad():
        tensor.view(-1)[-1] += 1e-3
    assert weights_digest(view) != before


def test_a_transform_is_identified_by_its_pixels() -> None:
    digests = [
        transform_digest(transform_pixels(Preprocessing(transform)))
        for transform in (
            paper_transform((16, 16)),
            lambda image: paper_transform((16, 16))(image),
            paper_transform((16, 32)),
            lambda image: -paper_transform((16, 16))(image),
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_the_same_settings_in_another_spelling() -> None:
    require_same("run.zarr", {"sites": ["embed"], "seed": 0, "more": 1}, {"sites": ("embed",), "seed": 0})


def test_the_first_difference_is_named() -> None:
    begun = {
        "command": "evaluate",
        "model": "tiny",
        "weights": "0123",
        "labels": "4567",
        "batch_size": 16,
        "sites": ["embed"],
        "versions": {"torch": "2.6", "timm": "1.0"},
    }
    refused(lambda: require_same("run.zarr", begun, {"batch_size": 8}), "'run.zarr'", "batch size 16, not 8")
    refused(lambda: require_same("run.zarr", begun, {"command": "measure"}), "command 'evaluate', not 'measure'")
    refused(lambda: require_same("run.zarr", begun, {"sites": ["x" * 99]}), "…")
    message = refused(lambda: require_same("run.zarr", begun, {"versions": {"torch": "2.7", "timm": "1.0"}}))
    assert "versions torch '2.6', not '2.7'" in message
    assert "timm" not in message


def test_digests_are_told_in_words() -> None:
    begun = {"model": "tiny", "weights": "0123", "labels": "4567"}
    refused(lambda: require_same("run.zarr", begun, {"weights": "4567"}), "with model 'tiny' of other weights:")
    refused(lambda: require_same("run.zarr", begun, {"labels": "89"}), "with other labels: give the same")
    said = refused(lambda: require_same("run.zarr", begun, {"labels": "89"}, lambda key: f"{key}: 'a' was 'b'"))
    assert "with other labels (labels: 'a' was 'b'): give the same to resume" in said
