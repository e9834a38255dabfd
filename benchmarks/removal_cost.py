"""Cost of token removal, as ratios to the bare forward pass of the same batch in the same run.

    python benchmarks/removal_cost.py --model vit_base_patch32_224 --batch-size 16 --steps 13 --repeats 3

Prints JSON: the time of both directions over all numbers of tokens for one given map, in bare passes, with shortened
sequences and with removed tokens masked (for models whose attention knows positions), and the number of passes if the
cost were proportional to tokens. Weights are random, since the cost does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from typing import Any

import numpy as np
import timm
import torch
from timing import seconds

import classlens
from classlens.tasks.evaluation.cascade import Cascade
from classlens.tasks.evaluation.image_batch import EvaluationSettings, ImageBatch
from classlens.tasks.evaluation.importance import StoredImportance
from classlens.tasks.evaluation.metrics.removal import Removal, numbers_kept


def no_cascade() -> Cascade:
    raise AssertionError("removal needs no random twin")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="vit_base_patch32_224")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=13)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    module: Any = timm.create_model(args.model).eval()
    torch.nn.init.trunc_normal_(module.head.weight, std=0.02)
    lens = classlens.load(module)
    pixels = torch.randn(args.batch_size, 3, *lens.view.input_size)
    tokens = lens.view.tokens(lens.view.input_size)
    count = tokens.grid[0] * tokens.grid[1]
    importance = StoredImportance("random maps", {}, np.random.default_rng(0).normal(size=(args.batch_size, count)))

    def bare() -> None:
        with torch.inference_mode():
            module(pixels)

    def batch_of(shortens: bool) -> ImageBatch:
        settings, target = EvaluationSettings(steps=args.steps), torch.zeros(args.batch_size, dtype=torch.int64)
        batch = ImageBatch(lens, settings, pixels, target, np.empty((0, 0)), 0, no_cascade, shortens)
        batch.trace  # noqa: B018, outside the timed part
        return batch

    bare()
    ratios: dict[str, list[float]] = {"shorter": [], "masked": []}
    before = seconds(bare)
    for _ in range(args.repeats):
        for name, shortens in (("shorter", True), ("masked", False)):
            batch = batch_of(shortens)
            removal = seconds(lambda batch=batch: Removal().measure(batch, importance))  # type: ignore[misc]
            after = seconds(bare)
            ratios[name].append(2 * removal / (before + after))
            before = after
    numbers = numbers_kept(count, args.steps)[1:]
    share = (numbers + len(tokens.prefix)) / tokens.count
    result = {
        "model": args.model,
        "batch_size": args.batch_size,
        "numbers_of_tokens": len(numbers),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        **{
            name: {
                "passes": round(statistics.median(values), 2),
                "low": round(min(values), 2),
                "high": round(max(values), 2),
            }
            for name, values in ratios.items()
        },
        "passes_in_proportion_to_tokens": round(2 * float(share.sum()), 2),
        "passes_without_shortening": 2 * len(numbers),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
