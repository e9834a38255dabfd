"""The list of models: what is filter_models, what the table and the JSON say, and the command `classlens models`."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from classlens.cli import app
from classlens.errors import ClasslensError
from classlens.models.adapter import ModelEntry
from classlens.render.terminal.models import filter_models

MODELS = [
    ModelEntry("vit_a", "timm", "ViT", 1000, "here"),
    ModelEntry("vit_dino_b", "timm", "DINOv2", 0, "not here"),
    ModelEntry("torchvision:vit_a", "torchvision", "ViT", 10, "not here"),
    ModelEntry("open_clip:A/b", "open_clip", "CLIP", None, "none published"),
]


@pytest.mark.parametrize(
    ("family", "search", "found"),
    [
        (None, None, [0, 1, 2, 3]),
        ("vit", None, [0, 2]),
        ("ViT", "TORCH", [2]),
        (None, "b vit", [1]),
        (None, "Dinov2", [1]),
        (None, "vit  a", [0, 2]),
    ],
)
def test_chosen(family: str | None, search: str | None, found: list[int]) -> None:
    assert filter_models(iter(MODELS), family, search) == [MODELS[index] for index in found]


def test_nothing_found() -> None:
    with pytest.raises(ClasslensError, match="family 'DINOv9' is not known; did you mean 'DINOv2'"):
        filter_models(MODELS, "DINOv9", None)
    with pytest.raises(ClasslensError, match="no model of family 'ViT' matches the search 'vit dino'"):
        filter_models(MODELS, "ViT", "vit dino")


def run(*args: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["models", *args])
    return done.exit_code, done.stdout, done.stderr


def test_the_table() -> None:
    code, out, _ = run("--search", "deit3 base 384")
    rows = [line.split() for line in out.splitlines() if "deit3" in line]
    assert code == 0
    assert [row[0] for row in rows] == [
        "deit3_base_patch16_384",
        "deit3_base_patch16_384.fb_in1k",
        "deit3_base_patch16_384.fb_in22k_ft_in1k",
    ]
    assert all(row[1:4] == ["timm", "DeiT-III", "1000"] for row in rows)


def test_json() -> None:
    code, out, _ = run("--search", "builtin:", "--json")
    assert code == 0
    entry = {"library": "classlens", "family": "ViT", "weights": "here"}
    models = [{"name": "builtin:photos", "classes": 13}, {"name": "builtin:cifar10", "classes": 10}]
    assert json.loads(out) == {"models": [entry | model for model in models]}


@pytest.mark.parametrize(("option", "text"), [("--family", "DEIT-IV"), ("--search", "no such model")])
def test_one_line_and_2_for_what_is_not_there(option: str, text: str) -> None:
    code, out, err = run(option, text)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert repr(text) in err
