"""What `classlens check` says of a model, by hand; and how the command ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from rich.console import Console
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

import classlens
from classlens.cli import app
from classlens.lens.verify import verify
from classlens.render.terminal.verification import verification, verification_tables
from tests import zoo

SMALL: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 7, "img_size": 32}

# A model of timm, and each class space as a person would write it down.
SPACES = {
    "vit_tiny_patch16_224": ["head(LayerNorm(x)) of cls"],
    "vit_base_patch16_xp_224": ["head(RMSNorm(x)) of cls"],
    "beit_base_patch16_224": ["head(LayerNorm(x)) of the mean of image tokens"],
    "vit_base_patch16_siglip_224": ["head(attention pool(LayerNorm(x))) of image"],
    "vit_base_patch16_siglip_gap_224": ["head(LayerNorm(x)) of the mean of image tokens"],
    "deit_tiny_distilled_patch16_224": ["0.5 · head(LayerNorm(x)) of cls", "0.5 · head(LayerNorm(x)) of dist"],
}


def record_of(module: Any) -> dict[str, Any]:
    zoo.randomize(module)
    view = classlens.load(module).view
    return verification(view, verify(view))


@pytest.mark.parametrize("name", SPACES)
def test_the_class_space(name: str) -> None:
    record = record_of(timm.create_model(name, **SMALL))
    assert record["class_space"] == SPACES[name]
    assert record["holds"]
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_the_record_of_a_model_with_registers() -> None:
    module = timm.create_model("vit_small_patch14_reg4_dinov2", **{**SMALL, "img_size": (42, 28)})
    record = record_of(module)
    laws = record.pop("laws")
    assert record == {
        "model": "VisionTransformer",
        "library": "timm",
        "class": "VisionTransformer",
        "input_size": [42, 28],
        "any_size": False,
        "prefix": ["cls", "reg0", "reg1", "reg2", "reg3"],
        "grid": [3, 2],
        "tokens": 11,
        "blocks": 2,
        "width": 24,
        "heads": [3],
        "norms": "pre",
        "residual_adds": "attention, then MLP",
        "num_classes": 7,
        "pooling": "cls",
        "class_space": ["head(LayerNorm(x)) of cls"],
        "holds": True,
    }
    names = ["residual stream", "class space", "attention rows", "memories", "attribution", "no trace"]
    names += ["fused attention"]
    assert sorted(law["name"] for law in laws) == sorted(names)


def test_a_law_that_fails_is_marked() -> None:
    module: Any = timm.create_model("vit_tiny_patch16_224", **SMALL)
    zoo.randomize(module)
    view = classlens.load(module).view
    module.blocks[1].attn.proj.register_forward_hook(lambda _, __, output: output * 1.1)
    record = verification(view, verify(view))
    assert not record["holds"]
    console = Console(width=120)
    with console.capture() as captured:
        for table in verification_tables(record):
            console.print(table)
    memories, attribution = (line for line in captured.get().splitlines() if "✗" in line)
    assert "memories" in memories
    assert "attribution" in attribution


def check(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["check", *map(str, args)], env={"COLUMNS": "120"})


def test_a_model_that_is_read_right_ends_with_0() -> None:
    result = check("builtin:cifar10")
    assert result.exit_code == 0, result.output
    assert "65: cls, then a 8×8 grid for pixels 32×32" in result.stdout
    assert result.stdout.count("✓") == 7


def test_json() -> None:
    record = json.loads(check("builtin:cifar10", "--json").stdout)
    assert record["holds"] is True
    assert record["model"] == "builtin:cifar10"


def test_a_broken_model_ends_with_1(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text(
        "import timm\n"
        "def make():\n"
        "    model = timm.create_model('test_vit', num_classes=5)\n"
        "    model.blocks[1].register_forward_hook(lambda _, __, output: output + 0.5)\n"
        "    return model\n"
    )
    result = check(f"{file}:make")
    assert result.exit_code == 1, result.output
    assert "✗" in result.stdout


def test_a_model_that_is_not_read_ends_with_2() -> None:
    result = check("swin_tiny_patch4_window7_224")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: model 'swin_tiny_patch4_window7_224'")


def test_random_weights_are_checked_in_earnest() -> None:
    """timm leaves EVA's head near zero and torchvision's at zero: nothing could be told from logits near zero."""
    result = check("eva02_tiny_patch14_224", "--random", "--num-classes", "12", "--json")
    assert result.exit_code == 0, result.output
    (law,) = (law for law in json.loads(result.stdout)["laws"] if law["name"] == "class space")
    assert float(law["note"].rsplit(" ", 1)[1]) > 1


def test_a_checkpoint_with_its_own_number_of_classes(tmp_path: Path) -> None:
    module = timm.create_model("test_vit", num_classes=6)
    save_file(
        {key: value + 0.01 * torch.randn_like(value) for key, value in module.state_dict().items()},
        tmp_path / "c.safetensors",
    )
    result = check("test_vit", "--checkpoint", tmp_path / "c.safetensors", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["num_classes"] == 6
