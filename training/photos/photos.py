"""Photos of a folder: decoded once, cropped anew in every epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from classlens.models.builtin.photos import IMAGE_SIZE, MEAN, STD

Photos = list[NDArray[np.uint8]]
_KEPT_SIDE = 256
"""Pixels of the shorter side that are kept in RAM; crops take what they need of them."""


def class_folders(root: Path) -> list[str]:
    """Folder names in the order of the classes: the first column of ``root/classes.txt``."""
    return [line.split("\t")[0] for line in (root / "classes.txt").read_text().splitlines() if line]


def read_split(root: Path, split: str) -> tuple[Photos, Tensor]:
    """All photos of ``root/split/<class>/*.jpg`` as uint8 ``[height, width, 3]``, and their classes ``[n]``."""
    photos, labels = [], []
    for label, folder in enumerate(tqdm(class_folders(root), desc=f"reading {split}", unit="class")):
        files = sorted((root / split / folder).glob("*.jpg"))
        if not files:
            raise SystemExit(f"no photos in {root / split / folder}: expected {split}/<class>/*.jpg below --data")
        photos += [_read(file) for file in files]
        labels += [label] * len(files)
    return photos, torch.tensor(labels)


def _read(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        photo = image.convert("RGB")
    factor = _KEPT_SIDE / min(photo.size)
    if factor < 1:
        photo = photo.resize((round(photo.width * factor), round(photo.height * factor)), Image.Resampling.BICUBIC)
    return np.asarray(photo)


def center(photos: Photos) -> Tensor:
    """The centers of photos as the model's own transform crops them, uint8 ``[n, 3, side, side]``."""
    out = []
    for photo in photos:
        height, width = photo.shape[:2]
        extent = min(height, width)
        left, top = (width - extent) / 2, (height - extent) / 2
        out.append(_resized(photo, (left, top, left + extent, top + extent)))
    return _stack(out)


def crop(photos: Photos, generator: torch.Generator, smallest: float) -> Tensor:
    """Random crops of at least ``smallest`` of the photos' areas, mirrored by chance, uint8 ``[n, 3, side, side]``."""
    draws = torch.rand(len(photos), 5, generator=generator).tolist()
    out = []
    for photo, (area, ratio, x, y, mirrored) in zip(photos, draws, strict=True):
        height, width = photo.shape[:2]
        pixels = height * width * (smallest + (1 - smallest) * area)
        aspect = (3 / 4) ** (1 - 2 * ratio)
        w, h = min(width, (pixels * aspect) ** 0.5), min(height, (pixels / aspect) ** 0.5)
        left, top = x * (width - w), y * (height - h)
        out.append(_resized(photo, (left, top, left + w, top + h))[:, :: -1 if mirrored < 0.5 else 1])
    return _stack(out)


def normalize(pixels: Tensor) -> Tensor:
    """The model's input from uint8 pixels ``[batch, 3, height, width]``."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (pixels.float() / 255 - mean) / std


def shrink(pixels: Tensor, side: int) -> Tensor:
    """Normalized pixels at another size."""
    return F.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True, align_corners=False)


def _resized(photo: NDArray[np.uint8], box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    image = Image.fromarray(photo)
    return np.asarray(image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0))


def _stack(photos: Photos) -> Tensor:
    return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2)
