"""Time and memory of turning a store into tables and figures.

    python benchmarks/analyze_cost.py
    python benchmarks/analyze_cost.py --images 1000 2000 4550

Prints JSON. ``analyze_seconds``: all experiments on stores of random facts in the shape of ViT-B/32 on ImageNet (12
blocks, 50 tokens, 1,000 classes, all six conditions, memories), with the default 10,000 permutations and 2,000
resamples, each store in its own process. ``figures_seconds``: all tables as PNG and SVG. ``peak_mib``: largest resident
size of that process. ``permutations_seconds``: one test of 10,000 shuffles of labels over a million tokens.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from classlens import analyze, figures
from classlens.core.stats import Statistics, shuffle_labels
from classlens.forward.agreement import BY, SUBLAYERS
from classlens.render.folders.analysis import write_analysis
from classlens.store.metadata import SHARD
from classlens.store.schema import Coords
from classlens.store.store import create_store
from classlens.tasks.tokens.schema import STORED_SITES, Axes

CONDITIONS = ("clean", "random_init", "self_only", "no_cls", "context_removed", "class_removed")
BLOCKS, GRID, CLASSES = 12, 7, 1000


def write_store(path: Path, images: int) -> None:
    """A store of random facts, as `classlens measure` would write one."""
    tokens = 1 + GRID**2
    axes = Axes(images, tokens, BLOCKS, CLASSES, STORED_SITES, embed=True, memories=True)
    identity = {"model": "random facts", "num_classes": CLASSES, "sites": [*STORED_SITES, "embed"], "memories": True}
    store = create_store(str(path), identity | {"data": "none", "split": None, "data_note": "", "pooling": "cls"})
    names = np.array([f"{number:06}" for number in range(images)], dtype=object)
    category = {
        "category": ("category", np.arange(CLASSES)),
        "class_name": ("category", np.array([f"class {number}" for number in range(CLASSES)], dtype=object)),
    }
    coords: Coords = {
        "image": ("image", names),
        "site": ("site", np.array(STORED_SITES, dtype=object)),
        "block": ("block", np.arange(BLOCKS)),
        "depth": ("depth", np.arange(BLOCKS + 1)),
        "place": ("place", np.arange(axes.places)),
        "token": ("token", np.arange(tokens)),
        "token_kind": ("token", np.array(["cls"] + ["image"] * GRID**2, dtype=object)),
        "by": ("by", np.array(BY)),
        "sublayer": ("sublayer", np.array(SUBLAYERS)),
        **category,
    }
    rng = np.random.default_rng(0)
    for condition in CONDITIONS:
        store.add_group(condition, axes.schema(coords))
        for start in range(0, images, SHARD):
            store.write(condition, start, _facts(axes, min(SHARD, images - start), rng), {})
    agreement = rng.random((2, 2, BLOCKS, CLASSES)).astype(np.float32)
    store.write_group(
        "parameters",
        {"class_value_agreement": (("weights", "sublayer", "block", "category"), agreement)},
        {"weights": ("weights", np.array(["model", "random_init"])), "sublayer": coords["sublayer"], **category},
    )


def _facts(axes: Axes, count: int, rng: np.random.Generator) -> dict[str, Any]:
    facts = axes.schema().blank(count)
    for key, values in facts.items():
        if values.dtype.kind == "f":
            facts[key] = np.asarray(rng.random(values.shape), dtype=values.dtype)
        else:
            bound = axes.classes if values.dtype.itemsize > 1 else 2
            facts[key] = rng.integers(0, bound, values.shape).astype(values.dtype)
    facts["kept"][:, 0] = 1
    return facts


def measured(store: Path, out: Path) -> dict[str, Any]:
    start = time.perf_counter()
    result = analyze(store)
    analyzed = time.perf_counter()
    write_analysis(result, out, version="benchmark")
    figures(out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    drawn = time.perf_counter()
    return {"analyze_seconds": analyzed - start, "figures_seconds": drawn - analyzed, "peak_mib": peak}


def permutations() -> float:
    rng = np.random.default_rng(0)
    ranks, group = rng.integers(0, CLASSES, 10**6), rng.random(10**6) < 0.3
    counts = [np.bincount(ranks[chosen], minlength=CLASSES) for chosen in (group, ~group)]
    start = time.perf_counter()
    shuffle_labels(counts[0], counts[1], np.arange(CLASSES), Statistics())
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[500, 4550])
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.store is not None:
        print(json.dumps(measured(args.store, args.store.parent / f"{args.store.stem}-analysis")))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for images in args.images:
            store = Path(folder) / f"{images}.zarr"
            write_store(store, images)
            command = [sys.executable, __file__, "--store", str(store)]
            process = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append({"images": images, **json.loads(process.stdout)})
    shape = {"machine": platform.machine(), "blocks": BLOCKS, "tokens": 1 + GRID**2, "classes": CLASSES}
    print(json.dumps({**shape, "analyze": rows, "permutations_seconds": permutations()}, indent=1))


if __name__ == "__main__":
    main()
