"""Means of activations: an outcome in lines, and as a record."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from classlens.tasks.means.means import MeansResult

_SHOWN = 5
"""Skipped images that are named."""


def means_lines(result: MeansResult) -> Iterator[str]:
    """Lines for people."""
    means = result.means
    by_class = f", and of {len(means.class_images):,} classes" if means.class_images else ""
    blocks = 1 + max(int(key.rpartition(".")[2]) for key in means.values)
    yield f"Means of {means.images:,} images{by_class}, at {blocks} blocks and {means.tokens.count:,} tokens."
    for name, reason in list(result.skipped.items())[:_SHOWN]:
        yield f"Skipped {name}: {reason}"
    if len(result.skipped) > _SHOWN:
        yield f"… and {len(result.skipped) - _SHOWN} more."
    yield f"Means: {result.file}"


def means_record(result: MeansResult) -> str:
    """The result as one JSON line."""
    facts = {
        "images": result.means.images,
        "classes": len(result.means.class_images),
        "skipped": result.skipped,
        "seconds": result.seconds,
    }
    return json.dumps({"event": "finished", "time": round(time.time(), 3), "file": str(result.file), **facts})
