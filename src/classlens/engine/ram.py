"""How much memory a run may take, as people write it."""

from __future__ import annotations

import re

from classlens.errors import ClasslensError

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def bytes_of(memory: int | str) -> int:
    """``bytes_of("8GB")``, ``"500 MiB"`` or a number of bytes; raises ClasslensError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(memory).lower())
    if found is None or found[2] not in _UNITS or isinstance(memory, bool):
        raise ClasslensError(f"memory {memory!r} is no amount of memory: give it as 8GB, 500MB or 4GiB")
    return int(float(found[1]) * _UNITS[found[2]])


def told(count: int) -> str:
    """``1.5 GB`` or ``12.0 MB``."""
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"
