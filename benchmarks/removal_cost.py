"""What token removal costs, as ratios to the bare forward pass of the same batch in the same run.

    python benchmarks/removal_cost.py --model vit_base_patch32_224 --batch-size 16 --steps 13 --repeats 3

Prints JSON: the time of both directions over all numbers of tokens for one map that is there already, in bare passes,
with sequences that are truly shorter and with removed tokens masked (what a model does that knows positions), and the
number of passes if work were in proportion to tokens. Weights are random, as cost does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import timm
import torch

import classlens
from classlens.tasks.evaluation.cascade import Cascade
from classlens.tasks.evaluation.image_batch import EvaluationSettings, ImageBatch
from classlens.tasks.evaluation.importance import parse_methods
from classlens.tasks.evaluation.metrics.removal import Removal, numbers_kept


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def no_twin() -> Cascade:
    raise AssertionError("removal makes no weights random")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="vit_base_patch32_224")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=13)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    module: Any = timm.create_model(given.model).eval()
    torch.nn.init.trunc_normal_(module.head.weight, std=0.02)
    lens = classlens.load(module)
    pixels = torch.randn(given.batch_size, 3, *lens.view.input_size)
    (method,) = parse_methods("class_rank")
    tokens = lens.view.tokens(lens.view.input_size)
    count = tokens.grid[0] * tokens.grid[1]

    def bare() -> None:
        with torch.inference_mode():
            module(pixels)

    def removal(trust: bool) -> None:
        target = torch.zeros(given.batch_size, dtype=torch.int64)
        seen = ImageBatch(
            lens, EvaluationSettings(steps=given.steps), pixels, target, np.empty((0, 0)), 0, no_twin, trust
        )
        seen.__dict__["trace"] = trace
        seen._maps[method.text] = torch.randn(given.batch_size, count)
        Removal().measure(seen, method)

    trace = lens.trace(pixels, batch_size=given.batch_size)
    bare()
    found: dict[str, list[float]] = {"shorter": [], "masked": []}
    last = seconds(bare)
    for _ in range(given.repeats):
        for name, trust in (("shorter", True), ("masked", False)):
            own = seconds(lambda trust=trust: removal(trust))  # type: ignore[misc]
            after = seconds(bare)
            found[name].append(2 * own / (last + after))
            last = after
    numbers = numbers_kept(count, given.steps)[1:]
    share = (numbers + len(tokens.prefix)) / tokens.count
    result = {
        "model": given.model,
        "batch_size": given.batch_size,
        "numbers_of_tokens": len(numbers),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        **{
            name: {"passes": round(statistics.median(each), 2), "low": round(min(each), 2), "high": round(max(each), 2)}
            for name, each in found.items()
        },
        "passes_in_proportion_to_tokens": round(2 * float(share.sum()), 2),
        "passes_without_shortening": 2 * len(numbers),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
