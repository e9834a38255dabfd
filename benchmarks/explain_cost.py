"""What explanations cost, as ratios to the bare forward pass of the same batch in the same run.

    python benchmarks/explain_cost.py --model vit_base_patch32_224 --batch-size 16 --repeats 5

Prints JSON: for every method, the median ratio of `lens.trace(pixels)` with `trace.map(target, method=…)` to the bare
pass, each set beside bare passes right before and after it, images a second of the same, and the peak memory above
that of the bare pass (each method in a process of its own). ``every_class``: `trace.explain_every_class()`, the maps of
all classes, with the pass; ``streamed class_gradient`` and ``streamed log_odds``: `lens.explain(pixels, target)`
without a trace. Weights are random, as cost does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
from typing import Any

import timm
import torch
from timing import seconds

import classlens
from classlens.explain.registry import METHODS


def measured(name: str, method: str, batch: int, repeats: int, device: str) -> dict[str, Any]:
    module: Any = timm.create_model(name).eval().to(device)
    torch.nn.init.trunc_normal_(module.head.weight, std=0.02)
    lens = classlens.load(module)
    pixels = torch.randn(batch, 3, *lens.view.input_size, device=device)

    def bare() -> None:
        with torch.inference_mode():
            module(pixels)

    def run() -> None:
        if method.startswith("streamed "):
            lens.explain(pixels, 7, batch_size=batch, method=method.removeprefix("streamed "))
            return
        trace = lens.trace(pixels, batch_size=batch)
        if method == "every_class":
            trace.explain_every_class()
        elif method == "trace":
            return
        else:
            trace.map(7, method=method)

    bare()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    ratios, times = [], []
    last = seconds(bare)
    for _ in range(repeats):
        own = seconds(run)
        after = seconds(bare)
        ratios.append(2 * own / (last + after))
        times.append(own)
        last = after
    return {
        "ratio": round(statistics.median(ratios), 3),
        "low": round(min(ratios), 3),
        "high": round(max(ratios), 3),
        "images_per_second": round(batch / statistics.median(times), 2),
        "peak_mib_above_bare_pass": round(peak / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="vit_base_patch32_224")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--methods", help="names with commas between them; left out: all")
    parser.add_argument("--method", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.method:
        print(json.dumps(measured(args.model, args.method, args.batch_size, args.repeats, args.device)))
        return
    found = {}
    names = ("streamed class_gradient", "streamed log_odds", "trace", *METHODS, "every_class")
    for method in names if args.methods is None else args.methods.split(","):
        options = ["--model", args.model, "--batch-size", str(args.batch_size), "--repeats", str(args.repeats)]
        options += ["--device", args.device]
        command = [sys.executable, __file__, *options, "--method", method]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[method] = json.loads(done.stdout)
    about = {
        "model": args.model,
        "batch_size": args.batch_size,
        "device": args.device,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps({"machine": platform.machine(), "torch": torch.__version__, **about, "methods": found}, indent=1))


if __name__ == "__main__":
    main()
