"""Models that a user describes: in Python, and in a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image

import classlens
from classlens import BlockView, ModelView, Point
from classlens.errors import ClasslensError
from classlens.models import timm as timm_family
from tests import zoo


def described(kind: str = "cls_registers") -> ModelView:
    return timm_family.describe(zoo.build(kind, torch.float32), "mine")


def test_a_description_is_taken_as_it_is() -> None:
    view = described()
    lens = classlens.load(view)
    assert lens.view is view
    assert ModelView(view.module, "a", view.blocks, view.readouts, (), "cls", (16, 16), view.grid).library == "own"
    assert lens.classes.names[3] == "class 3"


def test_what_the_author_knows_comes_along() -> None:
    names = [f"name {number}" for number in range(zoo.CLASSES)]
    view = replace(described(), class_names=names, transform=lambda _: torch.ones(3, 16, 16))
    lens = classlens.load(view)
    assert lens.classes.names == tuple(names)
    assert torch.equal(lens.trace(Image.new("RGB", (9, 9))).recording.pixels, torch.ones(1, 3, 16, 16))


@pytest.mark.parametrize("options", [{"checkpoint": "c.pth"}, {"num_classes": 3}, {"img_size": 8}, {"device": "cpu"}])
def test_a_description_stands_alone(options: dict[str, Any]) -> None:
    with pytest.raises(ClasslensError):
        classlens.load(described(), **options)


@pytest.mark.parametrize("name", ["resid_pre", "attn_out", "mlp_out", "resid_post", "values", "attention"])
def test_a_block_shows_every_point(name: str) -> None:
    block = described().blocks[0]
    points = {key: point for key, point in block.points.items() if key != name}
    with pytest.raises(ClasslensError, match=f"without the point '{name}'"):
        BlockView(points, block.heads, block.attn, block.mlp)


def test_registers_that_are_forgotten_are_found() -> None:
    """The mistake of tools that take every prefix token for [CLS]: image tokens would be off by two."""
    with pytest.raises(ClasslensError, match=r"\[1, 7, 24\] are not cls and 2×2 image tokens"):
        classlens.load(replace(described(), prefix=("cls",)))


def test_a_grid_that_is_not_the_models() -> None:
    with pytest.raises(ClasslensError, match="are not cls reg0 reg1 and 4×4 image tokens"):
        classlens.load(replace(described(), grid=lambda size: (4, 4)))


def test_a_point_that_nothing_passes() -> None:
    view = described()
    block = replace(view.blocks[1], points={**view.blocks[1].points, "mlp_out": Point(torch.nn.Identity())})
    with pytest.raises(ClasslensError, match="mlp_out of block 1 passed 0 times"):
        classlens.load(replace(view, blocks=(view.blocks[0], block, view.blocks[2])))


def test_sites_that_are_mixed_up() -> None:
    view = described()
    first = view.blocks[0]
    block = replace(first, points={**first.points, "attn_out": first.points["mlp_out"]})
    with pytest.raises(ClasslensError, match="not the sum of their parts"):
        classlens.load(replace(view, blocks=(block, *view.blocks[1:])))


# In a file


def file(folder: Path, text: str) -> str:
    (folder / "mine.py").write_text(text)
    return str(folder / "mine.py")


def test_a_module_of_a_known_library(tmp_path: Path) -> None:
    path = file(tmp_path, "import timm\ndef make():\n    return timm.create_model('test_vit', num_classes=4)\n")
    lens = classlens.load(f"{path}:make")
    assert len(lens.classes) == 4
    assert lens.view.name == f"{path}:make"
    module = classlens.load(timm.create_model("test_vit", num_classes=4, pretrained=False))
    photo = Image.new("RGB", (99, 77), "teal")
    assert torch.equal(lens.preprocessing(photo, "photo"), module.preprocessing(photo, "photo"))


BAD = {
    "no such function": ("def make(): pass", "no function 'mak'; did you mean 'make'"),
    "something else": ("def mak(): return 3", r"mak\(\) returned a int; expected a ModelView"),
    "an import that fails": ("import nowhere_at_all", "raised ModuleNotFoundError while it was created"),
    "a mistake of syntax": ("def mak(:", "raised SyntaxError"),
    "a function that fails": (
        "def mak(): return 1 / 0",
        r"raised ZeroDivisionError while it was created \(division by zero",
    ),
    "a module of nobody": (
        "from torch import nn\ndef mak(): return nn.Linear(2, 2)",
        "describe yours with a ModelView",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_makes_no_model(kind: str, tmp_path: Path) -> None:
    text, words = BAD[kind]
    with pytest.raises(ClasslensError, match=words) as caught:
        classlens.load(f"{file(tmp_path, text)}:mak")
    assert "\n" not in str(caught.value)


def test_no_file() -> None:
    with pytest.raises(ClasslensError, match="'nowhere.py' is not a file"):
        classlens.load("nowhere.py:make")


def test_options_are_the_files_own(tmp_path: Path) -> None:
    with pytest.raises(ClasslensError, match="load its weights in the function itself"):
        classlens.load(f"{file(tmp_path, 'def make(): pass')}:make", num_classes=3)
