"""Cost of a trace, and of results that are computed from one, as ratios to the bare forward pass.

    python benchmarks/trace_cost.py --model vit_base_patch32_224 --batch-size 16 --repeats 15

Prints JSON. Bare passes and measured ones alternate in one run, and the ratio is the median over pairs of
neighbors, so that a machine that is busy now and then slows both. Weights are random: cost does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable

import timm
import torch
from timing import seconds

import classlens
from classlens.models.view import Site

SITES: tuple[Site, ...] = ("attn_out", "mlp_out", "resid_post")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_base_patch32_224")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    module = timm.create_model(args.model, pretrained=False).eval().to(args.device)
    lens = classlens.load(module)
    pixels = torch.randn(args.batch_size, 3, *lens.view.input_size, device=args.device)
    target = torch.randint(lens.view.num_classes, (args.batch_size,))

    def bare() -> None:
        with torch.no_grad():
            module(pixels)

    tasks: dict[str, Callable[[], object]] = {
        "trace": lambda: lens.trace(pixels),
        "explain": lambda: lens.trace(pixels).explain(target, method="class_gradient"),
        "facts": lambda: lens.facts(pixels, SITES, target, batch_size=len(pixels)),
        "facts_of_a_trace": lambda: lens.trace(pixels).facts(SITES, target),
        "attribution": lambda: lens.trace(pixels).attribution(target),
        "attention_of_all_queries": lambda: lens.trace(pixels).attention(queries="all"),
        "states": lambda: lens.trace(pixels).states(),
        "norms": lambda: lens.trace(pixels).norms(),
    }
    bare()
    times: dict[str, list[float]] = {name: [] for name in ("bare", *tasks)}
    ratios: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    for _ in range(args.repeats):
        for name, task in tasks.items():
            before = seconds(bare)
            took = seconds(task)
            after = seconds(bare)
            times["bare"] += [before, after]
            times[name].append(took)
            ratios[name].append(took / ((before + after) / 2))
    report = {
        "model": args.model,
        "batch_size": args.batch_size,
        "device": args.device,
        "threads": args.threads,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "machine": platform.machine(),
        "bare_seconds": round(statistics.median(times["bare"]), 4),
        "ratio_to_bare_forward_pass": {
            name: {
                "median": round(statistics.median(values), 3),
                "quartiles": [round(q, 3) for q in statistics.quantiles(values, n=4)[::2]],
            }
            for name, values in ratios.items()
        },
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
