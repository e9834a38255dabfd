"""Models for mosaics of twice the input size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import classlens
from classlens import evaluate
from classlens.engine.model_source import ModelSource
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
    source = ModelSource(TINY, {"checkpoint": weights})
    lens, doubled = source.lens, source.doubled()
    assert doubled is not None
    assert doubled.view.input_size == (448, 448)
    assert doubled.view.tokens((448, 448)).grid == (28, 28)
    for name in ("blocks.3.mlp.fc1.weight", "head.weight"):
        assert torch.equal(doubled.view.module.state_dict()[name], lens.view.module.state_dict()[name])
    # A grid of twice as many rows, interpolated from the trained one.
    trained, resampled = (x.view.module.get_parameter("pos_embed")[0, 1:].detach() for x in (lens, doubled))
    trained, resampled = trained.view(14, 14, -1), resampled.view(28, 28, -1)
    torch.testing.assert_close(resampled.mean(dim=(0, 1)), trained.mean(dim=(0, 1)), atol=2e-3, rtol=0)
    assert not torch.equal(resampled[:14, :14], trained)


def test_other_weights_are_not_the_model() -> None:
    """Without a checkpoint, weights are drawn anew by each load, and the two models differ."""
    assert ModelSource(TINY, {"pretrained": False, "num_classes": 7}).doubled() is None


def test_models_of_one_size_and_of_any_size() -> None:
    assert ModelSource("builtin:cifar10", {}).doubled() is None
    assert ModelSource(classlens.load(zoo.build("cls")), {}).doubled() is None
    dynamic = classlens.load(zoo.build("cls_dynamic"))
    assert ModelSource(dynamic, {}).doubled() is dynamic


def test_mosaics_of_two_sizes_do_not_meet_in_one_store(weights: Path, tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(7)]
    options: dict[str, Any] = {"checkpoint": weights, "class_names": names, "img_size": 64}
    data, out = folder(tmp_path / "images", 4, names), tmp_path / "out"
    evaluate(TINY, data, out, methods=["rollout"], metrics=["pointing"], **options)
    lens = classlens.load(TINY, **options)
    refused(
        lambda: evaluate(lens, data, out, methods=["random"], metrics=["masking", "pointing"]), "twice", "as a lens"
    )
    # Metrics on single images are added, and are the only ones.
    result = evaluate(lens, data, out, methods=["random"], metrics=["class_sensitivity", "masking"])
    assert set(result.scores["metric"]) == {"masking", "pointing"}
