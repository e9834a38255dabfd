"""Amounts of RAM as people write them."""

from __future__ import annotations

import re

from classlens.errors import ClasslensError

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_ram(ram: int | str) -> int:
    """Bytes: ``parse_ram("8GB")``, ``"500 MiB"`` or a number of bytes; raises ClasslensError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(ram).lower())
    if match is None or match[2] not in _UNITS or isinstance(ram, bool):
        raise ClasslensError(f"ram {ram!r} is no amount of RAM: give it as 8GB, 500MB or 4GiB")
    return int(float(match[1]) * _UNITS[match[2]])


def format_ram(count: int) -> str:
    """``1.5 GB`` or ``12.0 MB``."""
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"
