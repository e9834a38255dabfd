"""Cost of the self-check, in relation to loading a model.

    python benchmarks/load_cost.py --models builtin:cifar10 vit_base_patch32_224 vit_base_patch16_224

Prints JSON: CPU time of loading with the whole self-check, and with laws 1 and 2 alone, as ratios to loading without a
check, and the first as a ratio to the second; then the check that follows a change of weights, as a ratio to a bare
pass over 32 images. Medians. Weights are random.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from classlens.forward.run import run
from classlens.lens.verify import check_laws
from classlens.models.load import load_model
from classlens.models.self_check import measure_laws
from classlens.models.view import ModelView


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def two_laws(view: ModelView) -> None:
    """Laws 1 and 2 on one random image."""
    sites: dict[str, list[Tensor]] = {name: [] for name in ("resid_pre", "attn_out", "mlp_out", "resid_post")}

    def receive(name: str, _: int, x: Tensor) -> None:
        sites[name].append(x)

    receivers = {name: partial(receive, name) for name in sites}
    logits = run(view, torch.randn(1, view.channels, *view.input_size), receivers)
    measure_laws(view, logits, view.tokens(view.input_size), **sites)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["builtin:cifar10", "vit_base_patch32_224"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report = {}
    for name in args.models:
        options: dict[str, Any] = {} if name.startswith("builtin") else {"pretrained": False}
        view = load_model(name, **options).view
        check_laws(view)
        batch = torch.randn(32, view.channels, *view.input_size)
        tasks: dict[str, Callable[[], object]] = {
            "load": partial(load_model, name, **options),
            "two_laws": partial(two_laws, view),
            "check": partial(check_laws, view),
            "pass": partial(run, view, batch),
        }
        times = {task: statistics.median(seconds(call) for _ in range(args.repeats)) for task, call in tasks.items()}
        report[name] = {
            "laws_1_and_2": round(1 + times["two_laws"] / times["load"], 3),
            "whole_check": round(1 + times["check"] / times["load"], 3),
            "whole_check_to_laws_1_and_2": round(
                (times["load"] + times["check"]) / (times["load"] + times["two_laws"]), 3
            ),
            "check_of_changed_weights_to_a_pass_of_32_images": round(times["check"] / times["pass"], 3),
        }
    print(json.dumps({"torch": torch.__version__, "machine": platform.machine(), "ratios": report}, indent=1))


if __name__ == "__main__":
    main()
