"""A model written by hand: one head copies red patches, one hidden unit writes the class blue, nothing else acts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torchvision.transforms import v2

import classlens
from classlens import AblateHeads, AblateNeurons, Lens

RED, BLUE, SEEN_BLUE, IS_RED, IS_BLUE = range(5)
"""Channels of the residual stream: colors of a patch, and what has been concluded from them."""
NAMES = ["blue", "gray", "red"]
HEAD, MOVER, UNIT = 1, 0, 3
"""The head of block 0 that copies red, the one that moves blue, and the unit of block 1 that writes blue."""
COLORS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


def by_hand() -> Lens:
    """Two blocks of two heads over 4×4 patches."""
    shape: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model: Any = VisionTransformer(**shape, mlp_ratio=0.5, num_classes=3).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        # Mean of the red and the blue channel, and constant channels, so that a norm leaves a gray patch alone.
        model.patch_embed.proj.weight[RED, 0] = model.patch_embed.proj.weight[BLUE, 2] = 1 / 64
        model.pos_embed[..., 8:12], model.pos_embed[..., 12:] = 1.0, -1.0
        attn = model.blocks[0].attn
        for head, read, write in ((HEAD, RED, IS_RED), (MOVER, BLUE, SEEN_BLUE)):
            query, key, value = (part * 16 + head * 8 for part in range(3))
            attn.qkv.bias[query] = 30.0  # every token looks for the color
            attn.qkv.weight[key, read] = attn.qkv.weight[value, read] = 1.0
            # The sum over channels is 0: a norm, which takes off their mean, sees the channel alone.
            attn.proj.weight[write, head * 8], attn.proj.weight[5, head * 8] = 2.0, -2.0
        mlp = model.blocks[1].mlp
        mlp.fc1.weight[UNIT, SEEN_BLUE], mlp.fc1.bias[UNIT] = 4.0, -2.0
        mlp.fc2.weight[IS_BLUE, UNIT] = 1.0
        model.head.weight[NAMES.index("red"), IS_RED] = model.head.weight[NAMES.index("blue"), IS_BLUE] = 3.0
        model.head.bias[NAMES.index("gray")] = 1.0
    transform = v2.Compose([v2.Resize((32, 32)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    return classlens.load(model, class_names=NAMES, transform=transform)


def patch_of(number: int) -> tuple[int, int]:
    """Row and column of the colored patch of an image."""
    return divmod(5 * number % 16, 4)


@pytest.fixture(scope="module")
def lens() -> Lens:
    return by_hand()


@pytest.fixture(scope="module")
def atlas(lens: Lens, tmp_path_factory: pytest.TempPathFactory) -> classlens.Atlas:
    root: Path = tmp_path_factory.mktemp("by hand")
    for name in NAMES:
        (root / "images" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.full((32, 32, 3), 0, dtype=np.uint8)
            row, column = patch_of(number)
            pixels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = COLORS.get(name, (0, 0, 0))
            Image.fromarray(pixels).save(root / "images" / name / f"{number:02}.png")
    classlens.measure(lens, f"folder:{root / 'images'}", root / "run.zarr", units=2, workers=0)
    return classlens.atlas(root / "run.zarr")


def test_the_model_is_right(atlas: classlens.Atlas) -> None:
    assert atlas.classes["accuracy"].tolist() == [1, 1, 1]


def test_one_head_writes_red(atlas: classlens.Atlas) -> None:
    writers = atlas.writers[(atlas.writers["group"] == "all") & (atlas.writers["category"] == NAMES.index("red"))]
    first, *others = writers.sort_values("contribution", ascending=False).itertuples()
    assert (first.sublayer, first.block, first.head) == ("attn", 0, HEAD)
    assert first.contribution > 2
    # Rounding, and the unit that is not quite off: gelu(-2) is -0.05.
    assert all(abs(other.contribution) < 0.1 for other in others)


def test_the_head_reads_the_red_patches(atlas: classlens.Atlas) -> None:
    tokens = atlas.head_tokens[(atlas.head_tokens["block"] == 0) & (atlas.head_tokens["head"] == HEAD)]
    assert len(tokens) == 9
    for token in tokens.itertuples():
        name, _, file = token.image.partition("/")
        assert name == "red"
        assert (token.row, token.column) == patch_of(int(file.removesuffix(".png")))


def test_one_unit_writes_blue(atlas: classlens.Atlas) -> None:
    writers = atlas.writers[(atlas.writers["group"] == "all") & (atlas.writers["category"] == NAMES.index("blue"))]
    first, *others = writers.sort_values("contribution", ascending=False).itertuples()
    assert (first.sublayer, first.block) == ("mlp", 1)
    mover = next(other for other in others if (other.sublayer, other.block, other.head) == ("attn", 0, MOVER))
    assert abs(mover.contribution) < 1e-5, "the head that moves blue writes no class"
    # The norm of a blue patch takes off its mean, so that it is not quite 0 in red.
    assert all(abs(other.contribution) < 0.05 * first.contribution for other in others)
    units = atlas.unit_writers[atlas.unit_writers["category"] == NAMES.index("blue")]
    assert units[["block", "unit", "listed"]].values.tolist() == [[1, UNIT, 12]]
    assert units["contribution"].item() == pytest.approx(first.contribution, rel=1e-5)
    value = atlas.units[(atlas.units["block"] == 1) & (atlas.units["unit"] == UNIT)]
    assert value["value_name"].item() == "blue"
    assert value["value_cosine"].item() == pytest.approx(1)
    strongest = atlas.unit_tokens[(atlas.unit_tokens["block"] == 1) & (atlas.unit_tokens["unit"] == UNIT)]
    assert {image.partition("/")[0] for image in strongest["image"]} == {"blue"}


@pytest.mark.parametrize(
    ("name", "edit"), [("red", AblateHeads([HEAD], blocks=[0])), ("blue", AblateNeurons([UNIT], blocks=[1]))]
)
def test_without_it_the_class_is_gone(lens: Lens, atlas: classlens.Atlas, name: str, edit: Any) -> None:
    images = [f"{atlas.attrs['data'].removeprefix('folder:')}/{name}/{number:02}.png" for number in range(3)]
    with lens.edit(edit):
        assert lens.trace(images).predictions["class_name"].values.tolist() == ["gray"] * 3
