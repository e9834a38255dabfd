"""Provenance of a result: digests of weights, transform and data, settings and versions."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from PIL import Image
from torch import Tensor

from classlens.data.dataset import Dataset
from classlens.data.mask_files import MaskFiles
from classlens.errors import ClasslensError
from classlens.lens.images import check_prepared
from classlens.lens.lens import Lens
from classlens.models.digest import weights_digest
from classlens.models.transforms import Preprocessing
from classlens.models.view import ModelView


def provenance(lens: Lens, dataset: Dataset, pixels: Tensor, *, batch_size: int, seed: int) -> dict[str, Any]:
    """Settings that a resumed run must share with the run that began a store; ``pixels`` from ``transform_pixels``.

    Raises ClasslensError for a lens with a tuned lens, whose scores would pass for those of the class embedding.
    """
    if lens.view.tuned_lens is not None:
        raise ClasslensError(
            "the lens has a tuned lens already: give the one that lens.with_tuned_lens was called on, and the tuned "
            "lens for the condition 'tuned_lens'"
        )
    return {
        "dtype": str(lens.view.dtype).removeprefix("torch."),
        "device": lens.view.device.type,
        "weights": weights_digest(lens.view),
        "images": len(dataset),
        "image_names": text_digest(dataset.names),
        "batch_size": batch_size,
        "seed": seed,
        "transform": transform_digest(pixels),
        "versions": versions(),
        **_masks(dataset),
    }


def _masks(dataset: Dataset) -> dict[str, str | None]:
    """Masks of one's own, and what their values mean. Those of a layout are part of the content of its images."""
    if not dataset.masks or not isinstance(dataset.source, MaskFiles):
        return {"masks": None, "mask_values": None}
    contents = map(dataset.source.mask_content, dataset.positions.tolist())
    return {"masks": text_digest(map(str, contents)), "mask_values": dataset.masks}


def description(lens: Lens, dataset: Dataset) -> dict[str, Any]:
    """Attributes that describe a run for readers and are not compared."""
    return {
        "model": lens.view.name,
        "library": lens.view.library,
        "pooling": lens.view.pooling,
        "num_classes": lens.view.num_classes,
        "has_mid": lens.view.has_mid,
        "data": dataset.spec,
        "split": dataset.split,
        "data_note": dataset.note,
        "unlabeled_images": int((dataset.labels < 0).sum()),
        "transform_text": repr(lens.preprocessing.transform)[:2000],
    }


def require_same(
    out: str,
    begun: Mapping[str, Any],
    settings: Mapping[str, Any],
    example: Callable[[str], str | None] = lambda key: None,
) -> None:
    """Raises ClasslensError where a run wrote to ``out`` with other settings.

    ``example`` gives a difference in words for a setting that is kept as a digest, such as ``"labels"``.
    """
    for key, value in settings.items():
        before, now = begun.get(key), json.loads(json.dumps(value))
        if before == now:
            continue
        if key == "weights":
            difference = f"model {begun.get('model')!r} of other weights"
        elif key in DIGESTS:
            difference = f"{DIGESTS[key]}{f' ({more})' if (more := example(key)) else ''}"
        else:
            difference = f"{key.replace('_', ' ')} {_difference(before, now)}"
        raise ClasslensError(f"output {out!r} was begun with {difference}: give the same to resume, or another --out")


DIGESTS = {
    "image_names": "images of other names",
    "labels": "other labels",
    "class_names": "other names of the classes, or in another order",
    "content": "other images of the same names",
    "transform": "another transform",
    "masks": "other masks, or none",
    "label_groups": "other label groups, or none",
}
"""Settings that are kept as digests, in words."""


def _difference(before: object, now: object) -> str:
    """Two values; of two tables, the values that differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in sorted({**before, **now}) if before.get(key) != now.get(key)]
        return ", ".join(f"{key} {_difference(before.get(key), now.get(key))}" for key in keys)
    return f"{_short(before)}, not {_short(now)}"


def text_digest(texts: Iterable[str]) -> str:
    """SHA-256 of texts in order; a file name that is not text holds surrogates."""
    return hashlib.sha256("\0".join(texts).encode(errors="surrogateescape")).hexdigest()


def transform_pixels(preprocessing: Preprocessing, view: ModelView | None = None) -> Tensor:
    """Pixels of a test picture after a transform, which identify what the transform does.

    Raises ClasslensError for pixels that the model of ``view`` does not take.
    """
    rows, columns = np.mgrid[:257, :331]
    picture = np.stack([rows * 255 // 256, columns * 255 // 330, (rows * columns) % 256], axis=-1)
    pixels = preprocessing(Image.fromarray(picture.astype(np.uint8)), "a test picture")
    if view is not None:
        check_prepared(pixels, (331, 257), view, "any photo")
    return pixels


def transform_digest(pixels: Tensor) -> str:
    """SHA-256 of the pixels of ``transform_pixels``, rounded, since processors round differently."""
    rounded = (pixels.double() * 1e3).round().to(torch.int64).numpy()
    return hashlib.sha256(f"{list(pixels.shape)}".encode() + np.ascontiguousarray(rounded).tobytes()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of everything that the numbers depend on."""
    return {
        "classlens": metadata.version("classlens"),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "machine": platform.machine(),
    }


def _short(value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
