"""CIFAR-10 as tensors: loaded once from an image folder, augmented batch by batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from classlens.models.builtin.cifar10 import CLASS_NAMES, IMAGE_SIZE, MEAN, STD


def read_split(root: Path, split: str) -> tuple[Tensor, Tensor]:
    """All images of ``root/split/<class>/*.jpg`` as uint8 ``[n, 3, 32, 32]`` and their class indices ``[n]``."""
    images, labels = [], []
    for label, name in enumerate(CLASS_NAMES):
        files = sorted((root / split / name).glob("*.jpg"))
        if not files:
            raise SystemExit(f"no images in {root / split / name}: expected {split}/<class>/*.jpg below --data")
        for file in files:
            with Image.open(file) as image:
                images.append(np.asarray(image.convert("RGB")))
        labels += [label] * len(files)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def normalize(pixels: Tensor) -> Tensor:
    """The model's input from uint8 or float images in 0…255."""
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    std = torch.tensor(STD).view(1, 3, 1, 1)
    return (pixels.float() / 255 - mean) / std


def augment(padded: Tensor, generator: torch.Generator, *, pad: int, cutout: int) -> Tensor:
    """Random crop of reflect-padded uint8 images, flip, brightness and contrast, one cut-out square, normalization."""
    count, side = len(padded), IMAGE_SIZE
    offsets = torch.randint(0, 2 * pad + 1, (count, 2), generator=generator)
    steps = torch.arange(side)
    rows = (offsets[:, :1] + steps)[:, None, :, None]
    flip = torch.rand(count, generator=generator) < 0.5
    columns = torch.where(flip[:, None], offsets[:, 1:] + steps.flip(0), offsets[:, 1:] + steps)[:, None, None, :]
    images = padded[torch.arange(count)[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]
    images = images.float()
    brightness, contrast = (0.8 + 0.4 * torch.rand(2, count, 1, 1, 1, generator=generator)).unbind(0)
    center = images.mean(dim=(1, 2, 3), keepdim=True)
    images = normalize((((images - center) * contrast + center) * brightness).clamp_(0, 255))
    corners = torch.randint(1 - cutout, side, (count, 2), generator=generator)
    inside = (steps >= corners[..., None]) & (steps < corners[..., None] + cutout)
    return images.masked_fill(inside[:, 0, None, :, None] & inside[:, 1, None, None, :], 0.0)


def pad_reflect(images: Tensor, pad: int) -> Tensor:
    """uint8 images with a reflected border, ready for :func:`augment`."""
    return torch.cat([F.pad(part.float(), (pad,) * 4, mode="reflect").byte() for part in images.split(4096)])
