"""Eval transforms in words and changed in parts, against those that the libraries make."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform
from torchvision import transforms
from torchvision.models import ViT_B_16_Weights
from typer.testing import CliRunner

import classlens
from classlens.cli import app
from classlens.cli.options import ModelOptions
from classlens.engine.model_source import ModelSource
from classlens.models.load import load_model
from classlens.models.recipe import read_recipe
from classlens.models.summary import summary
from classlens.models.transforms import paper_transform
from tests.refusals import refused
from tests.zoo import randomize


def photo() -> Image.Image:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (90, 131, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy()).resize((262, 180))


def processor(**options: Any) -> Any:
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    from classlens.models.transformers import Processing

    return Processing(transformers.ViTImageProcessor(size={"height": 48, "width": 32}, **options))


TRANSFORMS: dict[str, tuple[Callable[[], Any], str]] = {
    "timm": (
        lambda: create_transform((3, 48, 48), crop_pct=0.9, interpolation="bicubic"),
        "resize 53, center crop 48, ImageNet mean",
    ),
    "timm, 0.5": (
        lambda: create_transform((3, 48, 48), crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3),
        "resize 48, center crop 48, mean 0.5",
    ),
    "torchvision": (
        lambda: transforms.Compose([ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1.transforms()]),
        "resize 384, center crop 384, ImageNet mean",
    ),
    "paper": (lambda: paper_transform((32, 48)), "resize to 32×48, mean 0.5"),
    "transformers": (processor, "resize to 48×32, mean 0.5"),
}


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_a_recipe_makes_the_same_pixels(kind: str) -> None:
    make, words = TRANSFORMS[kind]
    transform = make()
    recipe = read_recipe(transform)
    assert str(recipe) == words
    assert recipe is not None
    # transformers resizes tensors, whose values may round to the next of 256 levels: 2/255 after division by 0.5.
    level = 2 / 255 if kind == "transformers" else 0.0
    torch.testing.assert_close(recipe.build()(photo()), transform(photo()), rtol=0, atol=level + 2e-5)


@pytest.mark.parametrize("step", [transforms.RandomCrop(32), transforms.Pad(3), transforms.Grayscale(3)])
def test_a_transform_of_other_steps_has_no_recipe(step: Any) -> None:
    chain = transforms.Compose([transforms.Resize(40), step, transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])
    assert read_recipe(chain) is None
    refused(lambda: classlens.load("builtin:cifar10", transform=chain, mean=0.5), "crop_pct, mean and std together")


def test_parts_are_changed_and_others_stay() -> None:
    changed = classlens.load("builtin:cifar10", crop_pct=0.8, mean=0.5, std=(0.1, 0.2, 0.3)).preprocessing
    expected = create_transform(
        (3, 32, 32), crop_pct=0.8, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.1, 0.2, 0.3)
    )
    assert torch.equal(changed(photo(), "photo"), expected(photo()))
    own = classlens.load("builtin:cifar10").preprocessing
    nearest = classlens.load("builtin:cifar10", interpolation="nearest").preprocessing
    assert (nearest.mean, nearest.std) == (own.mean, own.std)
    small = photo().resize((32, 32))
    assert torch.equal(nearest(small, "photo"), own(small, "photo")), "nothing is resized"
    assert not torch.equal(nearest(photo(), "photo"), own(photo(), "photo"))


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"crop_pct": 0.0}, ["crop_pct is 0.0"]),
        ({"crop_pct": 1.2}, ["crop_pct is 1.2", "at most 1"]),
        ({"interpolation": "cubic"}, ["interpolation 'cubic'", "did you mean 'bicubic'"]),
        ({"mean": (0.5, 0.5)}, ["mean has 2 numbers"]),
        ({"std": 0.0}, ["std is 0.0", "above 0"]),
        ({"mean": float("nan")}, ["finite"]),
    ],
)
def test_parts_that_cannot_be(options: dict[str, Any], parts: list[str]) -> None:
    refused(lambda: classlens.load("builtin:cifar10", **options), *parts)


# A transform in a file

FILE = """
from torchvision import transforms
whole = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor(), transforms.Normalize(0.5, 0.25)])
def make():
    return whole
def plain(image):
    return whole(image)
"""


@pytest.mark.parametrize("name", ["whole", "make", "plain"])
def test_a_transform_in_a_file_also_in_other_processes(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    lens = classlens.load("builtin:cifar10", transform=f"{tmp_path}/mine.py:{name}")
    chain = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor(), transforms.Normalize(0.5, 0.25)])
    assert torch.equal(lens.preprocessing(photo(), "photo"), chain(photo()))
    assert lens.preprocessing.mean == (None if name == "plain" else (0.5,))
    again = pickle.loads(pickle.dumps(lens.preprocessing))
    assert torch.equal(again(photo(), "photo"), chain(photo()))


def test_a_file_without_a_transform(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def whole(): return 3")
    refused(lambda: classlens.load("builtin:cifar10", transform=f"{tmp_path}/mine.py:whole"), "returned a int")
    refused(lambda: classlens.load("builtin:cifar10", transform=f"{tmp_path}/mine.py:whol"), "did you mean 'whole'")
    refused(lambda: classlens.load("builtin:cifar10", transform="timm"), "transform 'timm' is not known")


# What is said first

OPTIONS: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 3}


def checkpoint(folder: Path, **options: Any) -> Path:
    model = timm.create_model("vit_tiny_patch16_224", **{**OPTIONS, "num_classes": 3, **options})
    randomize(model)
    torch.save(model.state_dict(), folder / "vit.pth")
    return folder / "vit.pth"


def test_the_first_line(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("n01\tcat\nn02\tdog\nn03\tn03\n")
    loaded = load_model(
        "vit_tiny_patch16_224", checkpoint=checkpoint(tmp_path, img_size=48), class_names=names, **OPTIONS
    )
    assert summary(loaded) == "48×48, 3×3 tokens; resize 53, center crop 48, mean 0.5; 3 classes from names.txt"
    assert loaded.classes.names == ("cat, n01", "dog, n02", "n03")
    assert loaded.classes.index("n02") == loaded.classes.index("dog") == 1
    without = load_model("vit_tiny_patch16_224", checkpoint=tmp_path / "vit.pth", transform=photo_free, **OPTIONS)
    assert summary(without) == "48×48, 3×3 tokens; a transform of other steps; 3 classes without names"


def photo_free(_: Image.Image) -> torch.Tensor:
    return torch.zeros(3, 48, 48)


def test_options_of_commands_are_those_of_load() -> None:
    options = ModelOptions(img_size="48,32", mean="0.5", std="0.1,0.2,0.3", crop_pct=0.9, num_classes=4)
    given = options.load_options("vit_tiny_patch16_224")
    assert (given["img_size"], given["mean"], given["std"]) == ((48, 32), (0.5,), (0.1, 0.2, 0.3))
    assert (given["crop_pct"], given["num_classes"]) == (0.9, 4)
    assert ModelOptions(img_size="48").load_options("x")["img_size"] == 48
    refused(lambda: ModelOptions(img_size="4.5").load_options("x"), "--img-size '4.5'", "HEIGHT,WIDTH")
    refused(lambda: ModelOptions(std="a").load_options("x"), "--std 'a'", "0.5,0.5,0.5")


def test_a_command_says_first_how_a_model_was_loaded() -> None:
    done = CliRunner().invoke(app, ["check", "builtin:cifar10"])
    assert done.stderr.startswith("32×32, 8×8 tokens; resize 32, center crop 32, mean 0.4")
    assert done.stderr.endswith("; 10 classes, named by the model\n")


def test_a_random_twin_has_the_shapes_of_the_checkpoint(tmp_path: Path) -> None:
    file = checkpoint(tmp_path, img_size=48, patch_size=8, in_chans=4)
    source = ModelSource("vit_tiny_patch16_224", {"checkpoint": file, **OPTIONS})
    shapes = {name: value.shape for name, value in source.lens.view.module.state_dict().items()}
    assert {k: v.shape for k, v in source.random_twin(0).view.module.state_dict().items()} == shapes
