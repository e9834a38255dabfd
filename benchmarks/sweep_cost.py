"""Cost of a causal sweep over all heads, in bare passes of one image, beside one whole pass for each head.

    python benchmarks/sweep_cost.py --model vit_base_patch32_224 --batch-size 32 --repeats 5

Prints JSON. Each repeat times bare passes of as many images as there are heads, in batches, then the sweep of one
image, then the bare passes again; the ratio is the median over repeats. ``block_rows`` counts work: rows that pass
through blocks, divided by the number of blocks. ``passes_of_one_image`` are approximate sweeps of all heads, of all
hidden units, and of all heads with 5 steps, each between two bare passes of one image. Weights are random: cost does
not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable
from functools import partial

import timm
import torch
from timing import seconds

import classlens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_base_patch32_224")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    module = timm.create_model(args.model, pretrained=False).eval().to(args.device)
    lens = classlens.load(module)
    view = lens.view
    heads = sum(block.heads for block in view.blocks)
    clean, corrupt = torch.randn(2, 1, 3, *view.input_size, device=args.device)
    batches = clean.expand(heads, -1, -1, -1).split(args.batch_size)

    def whole() -> None:
        with torch.no_grad():
            for batch in batches:
                module(batch)

    def one() -> None:
        with torch.no_grad():
            module(clean)

    def sweep() -> None:
        lens.sweep(clean, corrupt, "heads", target=0, batch_size=args.batch_size)

    def approximate(over: str = "heads", steps: int = 1) -> None:
        lens.sweep(clean, corrupt, over, target=0, approximate=True, steps=steps, batch_size=args.batch_size)

    of_one_image: dict[str, Callable[[], None]] = {
        "approximate_heads": approximate,
        "approximate_units": partial(approximate, "units"),
        "approximate_heads_5_steps": partial(approximate, steps=5),
    }
    rows: list[int] = []
    handles = [
        block.points["resid_post"].module.register_forward_hook(lambda *of_pass: rows.append(len(of_pass[-1])))
        for block in view.blocks
    ]
    lens.check()  # weights and hooks are checked where they have changed; not within what is counted
    rows.clear()
    sweep()
    for handle in handles:
        handle.remove()
    lens.check()
    one()
    approximate()
    times: dict[str, list[float]] = {"sweep": [], "whole_passes": [], "one_pass": []}
    ratios: dict[str, list[float]] = {"of_whole_passes": [], "of_passes_of_one_image": []}
    passes: dict[str, list[float]] = {name: [] for name in of_one_image}
    for _ in range(args.repeats):
        before, single, took, after = seconds(whole), seconds(one), seconds(sweep), seconds(whole)
        times["sweep"].append(took)
        times["whole_passes"] += [before, after]
        times["one_pass"].append(single)
        ratios["of_whole_passes"].append(took / ((before + after) / 2))
        ratios["of_passes_of_one_image"].append(took / (heads * single))
        for name, call in of_one_image.items():
            before, took, after = seconds(one), seconds(call), seconds(one)
            passes[name].append(2 * took / (before + after))
    report = {
        "model": args.model,
        "variants": heads,
        "batch_size": args.batch_size,
        "threads": args.threads,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "machine": platform.machine(),
        "block_rows": round(sum(rows) / len(view.blocks), 2),
        "seconds": {name: round(statistics.median(values), 4) for name, values in times.items()},
        "ratio": {
            name: {"median": round(statistics.median(values), 3), "least": round(min(values), 3)}
            for name, values in ratios.items()
        },
        "passes_of_one_image": {
            name: {"median": round(statistics.median(values), 2), "least": round(min(values), 2)}
            for name, values in passes.items()
        },
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
