"""The teacher of the photo model: a larger ViT with as many tokens as its student."""

from __future__ import annotations

from pathlib import Path

import timm
from safetensors.torch import load_file
from student import Model

SIDE = 196
"""Pixels of its input: 14×14 patches of 14 pixels, the tokens of the student."""


def load_teacher(path: Path, classes: int) -> Model:
    """timm's ``vit_small_patch14_dinov2`` with the weights of a file, for photos of 196 pixels."""
    state = {name: value.float() for name, value in load_file(path).items()}
    teacher: Model = timm.create_model("vit_small_patch14_dinov2", num_classes=classes, img_size=224)
    teacher.load_state_dict(state)
    teacher.set_input_size(img_size=SIDE)
    return teacher.eval().requires_grad_(False)
