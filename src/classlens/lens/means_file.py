"""Means of activations in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from classlens.core.arguments import AnyPath
from classlens.core.path_arguments import checked_with_home
from classlens.errors import ClasslensError, cause
from classlens.forward.means import Means
from classlens.models.files import require_file, require_floats
from classlens.models.view import Tokens

_KIND = "means"
_BY_CLASS = "by_class."


@checked_with_home
def load_means(file: AnyPath) -> Means:
    """Read means of activations that ``classlens.means`` wrote, for ``to=`` of ablations.

    Args:
        file: the ``.safetensors`` file.

    Returns:
        The means.

    Raises:
        ClasslensError: no file, another kind of file, or a damaged one.

    Examples:
        >>> import classlens
        >>> means = classlens.load_means("means.safetensors")  # doctest: +SKIP
    """
    return read_means(file)[0]


def read_means(file: str | os.PathLike[str]) -> tuple[Means, dict[str, str]]:
    """The means of a file and its metadata; raises ClasslensError for anything else."""
    path = Path(file)
    require_file(path, "means")
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            if metadata.get("classlens") != _KIND:
                raise ClasslensError(
                    f"file {str(path)!r} holds no means of classlens: give one that `classlens means` wrote"
                )
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ClasslensError(
            f"means {str(path)!r} cannot be read ({cause(error)}): give a file that `classlens means` wrote"
        ) from None
    require_floats(f"file {str(path)!r}", dtypes=(torch.float32, torch.float64), **tensors)
    try:
        means = _means(metadata, tensors)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        means = None
    if means is None or not _fits(means):
        raise ClasslensError(
            f"means {str(path)!r} are damaged, as their metadata and values do not fit: measure them again with "
            "`classlens means`"
        )
    return means, metadata


def write_means(means: Means, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a file for ``read_means``, with further metadata; raises OSError or SafetensorError."""
    about = {
        "data": means.data,
        "images": means.images,
        "prefix": means.tokens.prefix,
        "grid": means.tokens.grid,
        "class_names": means.class_names,
        "class_images": list(means.class_images.items()),
    }
    model = {"classlens": _KIND, "model": means.model, "weights": means.weights, "means": json.dumps(about)}
    by_class = {f"{_BY_CLASS}{key}": values for key, values in means.class_values.items()}
    save_file({**means.values, **by_class}, path, {**metadata, **model})


def _means(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Means:
    about: dict[str, Any] = json.loads(metadata["means"])
    rows, columns = about["grid"]
    by_class = {key: values for key, values in tensors.items() if key.startswith(_BY_CLASS)}
    return Means(
        metadata["model"],
        metadata["weights"],
        str(about["data"]),
        int(about["images"]),
        Tokens(tuple(map(str, about["prefix"])), (int(rows), int(columns))),
        {key: values for key, values in tensors.items() if key not in by_class},
        {key.removeprefix(_BY_CLASS): values for key, values in by_class.items()},
        tuple(map(str, about["class_names"])),
        {int(index): int(images) for index, images in about["class_images"]},
    )


def _fits(means: Means) -> bool:
    """Whether the values have the shapes of which the metadata tell."""
    classes, kinds = len(means.class_images), len(means.tokens.prefix) + 1
    keys = means.values.keys()
    return (
        bool(keys)
        and means.class_values.keys() == (keys if classes else set())
        and all(0 <= index < len(means.class_names) for index in means.class_images)
        and all(values.ndim == 2 and len(values) == means.tokens.count for values in means.values.values())
        and all(
            values.shape == (classes, kinds, means.values[key].shape[1]) for key, values in means.class_values.items()
        )
    )
