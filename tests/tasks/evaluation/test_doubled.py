"""A model for mosaics of twice its size, where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import classlens
from classlens import evaluate
from classlens.tasks.evaluation.job import larger
from tests import zoo
from tests.data.pictures import folder
from tests.refusals import refused

TINY = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = timm.create_model(TINY, pretrained=False, num_classes=7)
    torch.nn.init.normal_(model.get_parameter("head.weight"))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(model.state_dict(), path)
    return path


@pytest.mark.slow
def test_position_embeddings_are_resampled(weights: Path) -> None:
    options: dict[str, Any] = {"checkpoint": weights}
    lens = classlens.load(TINY, **options)
    large = larger(TINY, lens, options)
    assert large is not None
    assert large.view.input_size == (448, 448)
    assert large.view.tokens((448, 448)).grid == (28, 28)
    for name in ("blocks.3.mlp.fc1.weight", "head.weight"):
        assert torch.equal(large.view.module.state_dict()[name], lens.view.module.state_dict()[name])
    # A grid of twice as many rows, made of the one that was trained.
    own, big = (each.view.module.get_parameter("pos_embed")[0, 1:].detach() for each in (lens, large))
    own, big = own.view(14, 14, -1), big.view(28, 28, -1)
    torch.testing.assert_close(big.mean(dim=(0, 1)), own.mean(dim=(0, 1)), atol=2e-3, rtol=0)
    assert not torch.equal(big[:14, :14], own)


def test_other_weights_are_no_larger_model(weights: Path) -> None:
    """Without a checkpoint, weights are drawn anew each time, and the two models are not one."""
    lens = classlens.load(TINY, checkpoint=weights)
    assert larger(TINY, lens, {"pretrained": False, "num_classes": 7}) is None


def test_models_of_one_size_and_of_any() -> None:
    assert larger("builtin:cifar10", classlens.load("builtin:cifar10"), {}) is None
    fixed = classlens.load(zoo.build("cls"))
    assert larger(fixed.view, fixed, {}) is None
    dynamic = classlens.load(zoo.build("cls_dynamic"))
    assert larger(dynamic.view, dynamic, {}) is dynamic


@pytest.mark.slow
def test_mosaics_of_two_sizes_do_not_meet_in_one_store(weights: Path, tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(7)]
    options: dict[str, Any] = {"checkpoint": weights, "class_names": names}
    data, out = folder(tmp_path / "images", 4, names), tmp_path / "out"
    evaluate(TINY, data, out, methods=["rollout"], metrics=["pointing"], **options)
    lens = classlens.load(TINY, **options)
    refused(lambda: evaluate(lens, data, out, methods=["random"], metrics=["pointing"]), "twice", "as a lens")
    # What needs no mosaics is added to it all the same.
    found = evaluate(lens, data, out, methods=["random"], metrics=["masking"])
    assert set(found.scores["metric"]) == {"masking", "pointing"}
