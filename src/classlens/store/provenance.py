"""What tells one measurement from another: digests of weights and transform, and the versions that made it."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from PIL import Image
from torch import Tensor

from classlens.data.dataset import Dataset
from classlens.errors import ClasslensError
from classlens.lens.lens import Lens
from classlens.models.digest import weights_digest
from classlens.models.transforms import Preprocessing


def identity_of(lens: Lens, dataset: Dataset, pixels: Tensor, *, batch_size: int, seed: int) -> dict[str, Any]:
    """What a store that is gone on with must have in common with the run; ``pixels`` are those of ``transform_pixels``.

    Raises ClasslensError for a lens with tuned_lens, whose readings would pass for those of the class embedding.
    """
    if lens.view.tuned_lens is not None:
        raise ClasslensError(
            "the lens has tuned_lens already: give the one that lens.with_tuned_lens was called on, and the "
            "tuned_lens for the condition 'tuned'"
        )
    return {
        "dtype": str(lens.view.dtype).removeprefix("torch."),
        "device": lens.view.device.type,
        "weights": weights_digest(lens.view),
        "data_fingerprint": dataset.fingerprint,
        "images": len(dataset),
        "batch_size": batch_size,
        "seed": seed,
        "transform": transform_digest(pixels),
        "versions": versions(),
    }


def description(lens: Lens, dataset: Dataset) -> dict[str, Any]:
    """What is written down beside it."""
    return {
        "model": lens.view.name,
        "family": lens.view.library,
        "pooling": lens.view.pooling,
        "num_classes": lens.view.num_classes,
        "has_mid": lens.view.has_mid,
        "data": dataset.spec,
        "split": dataset.split,
        "data_note": dataset.note,
        "transform_text": repr(lens.preprocessing.transform)[:2000],
    }


def transform_pixels(preprocessing: Preprocessing) -> Tensor:
    """The pixels that a transform makes of a test picture: what it does, however it is written."""
    rows, columns = np.mgrid[:257, :331]
    picture = np.stack([rows * 255 // 256, columns * 255 // 330, (rows * columns) % 256], axis=-1)
    return preprocessing(Image.fromarray(picture.astype(np.uint8)), "a test picture")


def transform_digest(pixels: Tensor) -> str:
    """Of the pixels that ``transform_pixels`` gives."""
    # Rounded, since another processor's arithmetic is no other transform.
    rounded = (pixels.double() * 1e3).round().to(torch.int64).numpy()
    return hashlib.sha256(f"{list(pixels.shape)}".encode() + np.ascontiguousarray(rounded).tobytes()).hexdigest()


def versions() -> dict[str, str]:
    """Of all that the numbers depend on."""
    return {
        "classlens": metadata.version("classlens"),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "machine": platform.machine(),
    }
