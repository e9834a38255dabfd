"""Files of others, before anything reads them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import torch
from torch import Tensor

from classlens.errors import ClasslensError

_SINGLE = (torch.float32, torch.float64)
HALF_TO_DOUBLE = (torch.float16, torch.bfloat16, *_SINGLE)


def require_file(path: str | os.PathLike[str], label: str, *, largest: int | None = None) -> None:
    """Raises ClasslensError for what exists and is no regular file of at most so many bytes.

    A pipe would be waited for, and a device read without end.
    """
    if not Path(path).exists():
        return
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ClasslensError(f"{label} {str(path)!r} is not a regular file: expected a file; give its path")
    if largest is not None and status.st_size > largest:
        raise ClasslensError(
            f"{label} {str(path)!r} has {status.st_size} bytes: expected at most {largest}; make it anew"
        )


def require_floats(label: str, *, dtypes: tuple[torch.dtype, ...] = _SINGLE, **tensors: Tensor) -> None:
    """Raises ClasslensError unless the tensors hold finite numbers, each in its place, of one of the dtypes."""
    for name, value in tensors.items():
        if value.dtype not in dtypes or value.layout != torch.strided or value.is_meta:
            kind = value.dtype if value.dtype not in dtypes else "meta" if value.is_meta else value.layout
            found, *expected, last = (str(name).removeprefix("torch.") for name in (kind, *dtypes))
            raise ClasslensError(
                f"{label} has a {name} of {found}: expected {', '.join(expected)} or {last}; make it anew"
            )
        if not bool(torch.isfinite(value).all()):
            raise ClasslensError(f"{label} holds numbers that are not finite: make it anew")
