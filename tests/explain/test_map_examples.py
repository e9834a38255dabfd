"""The functions of docs/maps, against the tools that they hand on, called by their own interfaces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from typer.testing import CliRunner

import classlens
from classlens.cli import app
from classlens.explain.custom import MapMethod
from classlens.explain.registry import find_method
from classlens.models.builtin import MODELS
from classlens.models.builtin.cifar10 import CLASS_NAMES
from classlens.models.transforms import paper_transform
from tests.core.test_pixel_maps import mean_of_cell
from tests.data.pictures import folder
from tests.models import oracles

MAPS = Path(__file__).parents[2] / "docs" / "maps"
TARGET = torch.tensor([3, 8])


def native(lens: classlens.Lens, pixels: Tensor, target: Tensor, name: str) -> Tensor:
    """The maps that classlens takes from a file, at their own resolution."""
    method = find_method(f"{MAPS}/{name}")
    assert isinstance(method, MapMethod)
    maps: Tensor = method.native(lens.trace(pixels).recording, target)
    return maps


def same(maps: Tensor, expected: Any) -> None:
    """Float32 sums of some thousand terms."""
    expected = torch.as_tensor(expected).double()
    assert expected.std() > 0
    np.testing.assert_allclose(maps, expected.detach(), rtol=0, atol=1e-6 * float(expected.abs().max().clamp_min(1)))


@pytest.fixture(scope="module")
def lens() -> classlens.Lens:
    return classlens.load("builtin:cifar10")


@pytest.fixture(scope="module")
def model() -> Any:
    return MODELS["builtin:cifar10"].trained().eval()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
def test_captum(lens: classlens.Lens, model: Any, pixels: Tensor) -> None:
    attr = pytest.importorskip("captum.attr", reason="captum comes with the extra compare")
    expected = attr.IntegratedGradients(model).attribute(pixels, target=TARGET)
    same(native(lens, pixels, TARGET, "captum_maps.py:integrated_gradients"), expected.sum(dim=1))
    expected = attr.Saliency(model).attribute(pixels.clone(), target=TARGET)
    same(native(lens, pixels, TARGET, "captum_maps.py:saliency"), expected.sum(dim=1))
    tokens = lens.trace(pixels).map(TARGET, method=f"{MAPS}/captum_maps.py:saliency").values
    values = expected[0].double().sum(dim=0).tolist()
    assert abs(tokens[0, 2, 5] - float(mean_of_cell(values, (8, 8), 2, 5))) < 1e-6


def test_pytorch_grad_cam(lens: classlens.Lens, model: Any, pixels: Tensor) -> None:
    package = pytest.importorskip("pytorch_grad_cam", reason="grad-cam comes with the extra compare")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def reshape(tokens: Tensor) -> Tensor:
        return tokens[:, 1:].reshape(len(tokens), 8, 8, -1).permute(0, 3, 1, 2)

    with package.GradCAM(model=model, target_layers=[model.blocks[5].norm1], reshape_transform=reshape) as cam:
        expected = cam(input_tensor=pixels, targets=[ClassifierOutputTarget(int(index)) for index in TARGET])
    assert expected.shape == (2, 32, 32)
    same(native(lens, pixels, TARGET, "grad_cam_maps.py:gradcam"), expected)


def test_torchcam(lens: classlens.Lens, model: Any, pixels: Tensor) -> None:
    methods = pytest.importorskip("torchcam.methods", reason="torchcam comes with the extra compare")
    for name, tool in {"torchcam_grad_cam": methods.GradCAM, "layer_cam": methods.LayerCAM}.items():
        with tool(
            model,
            "blocks.5.norm1",
            reshape_transform=lambda tokens: tokens[:, 1:].reshape(len(tokens), 8, 8, -1).permute(0, 3, 1, 2),
        ) as cam:
            expected = cam(TARGET.tolist(), model(pixels), normalized=False)[0]
        assert expected.shape == (2, 8, 8)
        same(native(lens, pixels, TARGET, f"torchcam_maps.py:{name}"), expected)


def vit() -> Any:
    model = torchvision.models.VisionTransformer(
        image_size=24, patch_size=8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=10
    )
    oracles.randomize(model, seed=0)
    return model.eval()


@contextmanager
def kept(*kinds: type) -> Iterator[None]:
    """Classes with the attributes that they had before the body."""
    before = {kind: dict(vars(kind)) for kind in kinds}
    try:
        yield
    finally:
        for kind, attributes in before.items():
            for name in [name for name in vars(kind) if name not in attributes]:
                delattr(kind, name)
            for name, value in attributes.items():
                if vars(kind)[name] is not value:
                    setattr(kind, name, value)


def test_lxt_with_zennit(tmp_path: Path) -> None:
    for name in ("lxt", "zennit"):
        pytest.importorskip(name, reason=f"{name} comes with the extra compare")
    lens = classlens.load(vit(), class_names=CLASS_NAMES, transform=paper_transform((24, 24)))
    pixels = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    maps = native(lens, pixels, TARGET, "lrp_maps.py:lrp")
    chefer = lens.trace(pixels).map(TARGET, method="chefer")
    from lxt.efficient import monkey_patch_zennit
    from lxt.efficient.core import monkey_patch
    from lxt.efficient.models.vit_torch import cp_LRP
    from torchvision.models import vision_transformer
    from zennit import rules
    from zennit.composites import LayerMapComposite
    from zennit.core import BasicHook

    expected = []
    with kept(nn.GELU, nn.LayerNorm, nn.MultiheadAttention, BasicHook):
        # As in the example of lxt, image by image.
        monkey_patch(vision_transformer, cp_LRP)
        monkey_patch_zennit()
        model = vit()
        composite = LayerMapComposite([(nn.Conv2d, rules.Gamma(0.25)), (nn.Linear, rules.Gamma(0.05))])
        composite.register(model)
        for image, target in zip(pixels, TARGET.tolist(), strict=True):
            one = image[None].clone().requires_grad_()
            model(one)[0, target].backward()
            expected.append((one * one.grad).sum(dim=1)[0])
    same(maps, torch.stack(expected))
    # The classes of torch are again what they were: gradients are right.
    np.testing.assert_array_equal(lens.trace(pixels).map(TARGET, method="chefer"), chefer)
    settings: dict[str, Any] = {"metrics": ["removal", "pointing"], "steps": 3, "workers": 0}
    methods = [f"{MAPS}/lrp_maps.py:lrp"]
    result = classlens.evaluate(lens, folder(tmp_path / "data", 4), tmp_path / "out", methods=methods, **settings)
    assert set(result.scores["method"]) == {"lrp"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
def test_on_the_command_line(tmp_path: Path) -> None:
    for name in ("captum", "pytorch_grad_cam", "torchcam"):
        pytest.importorskip(name, reason=f"{name} comes with the extra compare")
    files = {"captum_maps.py": "integrated_gradients", "grad_cam_maps.py": "gradcam", "torchcam_maps.py": "layer_cam"}
    methods = ",".join(f"{MAPS}/{file}:{function}" for file, function in files.items())
    data = folder(tmp_path / "images", 4)
    photos, model = tmp_path / "images", ["--model", "builtin:cifar10"]
    explained = CliRunner().invoke(
        app,
        ["explain", str(next(photos.glob("*/*"))), *model, "--method", methods, "--out", str(tmp_path / "pictures")],
    )
    assert explained.exit_code == 0, explained.output
    names = [path.name for path in (tmp_path / "pictures").glob("*.png")]
    assert sorted(names) == ["01-gradcam.png", "01-integrated_gradients.png", "01-layer_cam.png", "01-methods.png"]
    out = tmp_path / "out"
    settings = ["--metrics", "removal", "--steps", "3", "--resamples", "50"]
    measured = CliRunner().invoke(
        app, ["evaluate", *model, "--data", data, "--methods", methods, *settings, "--out", str(out)]
    )
    assert measured.exit_code == 0, measured.output
    summary = (out / "results" / "summary.md").read_text()
    assert all(f"| {function} |" in summary for function in files.values())
