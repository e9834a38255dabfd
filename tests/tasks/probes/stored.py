"""Probes on disk, read without the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from tests.tasks.tiny import NAMES, WIDTH


def stored_probes(out: Path, folder: str = "probe") -> dict[tuple[str, int, int], tuple[Any, Any, Any]]:
    """Weight, bias and alpha by site, block and token; of a pooled probe by its first token."""
    probes = {}
    for path in (out / folder).glob("*.safetensors"):
        site, block, start, stop = path.stem.split("-")
        with safe_open(path, framework="np") as file:
            weight, bias, alpha = (file.get_tensor(name) for name in ("weight", "bias", "alpha"))
        assert weight.dtype == np.float32
        for number in range(len(weight)):
            key = (site, int(block), int(start) + number)
            assert key not in probes
            probes[key] = weight[number], bias[number], alpha[number]
            assert folder == "probe_pooled" or int(stop) - int(start) == len(weight)
    return probes


def ram_for(probes: int, images: int = 16) -> int:
    """RAM for so many probes with the features of ``images`` images: the lower triangle of XᵀX, XᵀY, features."""
    strips = WIDTH * WIDTH  # one strip of at most 64 columns
    return probes * 8 * (strips + WIDTH * len(NAMES) + WIDTH * images)
