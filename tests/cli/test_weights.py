"""`classlens inspect` where weights are not on this machine: one line that says what to fetch and where to put it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

import classlens
from classlens.cli import app
from tests.zoo import randomize


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    Image.radial_gradient("L").convert("RGB").resize((40, 40)).save("photo.png")
    Path("names.txt").write_text("cat\ndog\nowl\n")


def run(*args: str) -> Result:
    return CliRunner().invoke(app, ["inspect", "photo.png", "--classes", "names.txt", *args])


@pytest.mark.parametrize(
    ("model", "fetch", "give"),
    [
        (
            "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
            "model.safetensors of https://huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
            "--checkpoint FILE",
        ),
        (
            "hf-hub:somebody/some-vit@main",
            "config.json and model.safetensors of https://huggingface.co/somebody/some-vit and",
            "local-dir:FOLDER",
        ),
        (
            "torchvision:vit_b_32.IMAGENET1K_V1",
            "https://download.pytorch.org/models/vit_b_32-d86f8d99.pth",
            "--checkpoint FILE",
        ),
        (
            "open_clip:ViT-B-32/laion2b_s34b_b79k",
            "open_clip_model.safetensors of https://huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            "--checkpoint FILE",
        ),
        (
            "google/vit-base-patch16-224",
            "config.json, preprocessor_config.json and model.safetensors of "
            "https://huggingface.co/google/vit-base-patch16-224",
            "--model FOLDER",
        ),
        (
            "paper:vit-b-16-miil",
            "model.safetensors of https://huggingface.co/timm/vit_base_patch16_224_miil.in21k_ft_in1k",
            "--checkpoint FILE",
        ),
        ("paper:vit-b-16-refinement", "/releases/download/v0/deit_base_trm.pth", "--checkpoint FILE"),
    ],
)
def test_what_to_fetch_and_where_to_put_it(model: str, fetch: str, give: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)  # the hub's client is told so by conftest
    for prefix, library in (("open_clip:", "open_clip"), ("google/", "transformers")):
        if model.startswith(prefix):
            pytest.importorskip(library, exc_type=ImportError)
    done = run("--model", model)
    assert (done.exit_code, done.stdout) == (2, "")
    *before, line = done.stderr.splitlines()
    assert all("Downloading" in other for other in before)
    assert all(part in line for part in (repr(model), fetch, give)), line
    assert not Path("classlens-report").exists()


def test_a_folder_that_was_fetched_is_read() -> None:
    model: Any = timm.create_model("test_vit", num_classes=3)
    Path("vit").mkdir()
    save_file(model.state_dict(), "vit/model.safetensors")
    config = {"architecture": "test_vit", "num_classes": 3, "pretrained_cfg": {"input_size": [3, 160, 160]}}
    Path("vit/config.json").write_text(json.dumps(config))
    lens = classlens.load("local-dir:vit")
    assert torch.equal(lens.view.space.weight, model.head.weight)


def test_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    open_clip = pytest.importorskip("open_clip")
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
        "text_cfg": {"width": 32, "heads": 2, "layers": 2},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-tiny-8", config)
    model = open_clip.create_model("ViT-tiny-8")
    randomize(model)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, "clip.safetensors")
    templates = ["a drawing of one {}", "{} at night"]
    Path("templates.txt").write_text("\n".join(templates))

    def found(*more: str) -> list[float]:
        done = run("--model", "open_clip:ViT-tiny-8", "--checkpoint", "clip.safetensors", *more)
        assert done.exit_code == 0, done.output
        (image,) = json.loads(Path("classlens-report/inspect.json").read_text())["images"]
        return [one["logit"] for one in sorted(image["predictions"], key=lambda one: one["index"])]

    lens = classlens.load("open_clip:ViT-tiny-8", checkpoint="clip.safetensors", class_names=["cat", "dog", "owl"])
    model.eval()
    tokenizer = open_clip.get_tokenizer("ViT-tiny-8")
    with torch.no_grad():
        assert lens.preprocessing.transform is not None
        pixels = lens.preprocessing.transform(Image.open("photo.png"))[None]
        texts = [[template.replace("{}", name) for template in templates] for name in ("cat", "dog", "owl")]
        means = torch.stack([model.encode_text(tokenizer(text), normalize=True).mean(0) for text in texts])
        unit = means / means.norm(dim=1, keepdim=True)
        expected = model.logit_scale.exp() * model.encode_image(pixels, normalize=True) @ unit.T
    assert found("--templates", "templates.txt") == pytest.approx(expected[0].tolist(), abs=1e-4)
    assert found() != pytest.approx(expected[0].tolist(), abs=1e-3)


def test_templates_go_with_openclip() -> None:
    Path("templates.txt").write_text("a {}")
    done = run("--templates", "templates.txt")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--templates" in done.stderr
    assert "'builtin:photos'" in done.stderr
