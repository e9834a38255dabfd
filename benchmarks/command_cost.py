"""Time and memory of every command, with CPU time in bare forward passes over the same images.

    python benchmarks/command_cost.py --model vit_small_patch14_dinov2 --img-size 224 --images 52

Prints JSON. Each command runs in a process of its own on JPEG files of 13 classes with masks; ``cpu_seconds`` and
``peak_mib`` are those of the process and its workers, start-up included. ``passes`` is CPU time without that of
``classlens check``, which loads the same model, in bare passes over the images of the command; bare passes run before
and after each command. Weights are random, as cost does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from measure_cost import photos
from PIL import Image
from safetensors.torch import save_file

from classlens.tasks.tokens.conditions.registry import CONDITIONS

CLASSES = 13
UNTRAINED = tuple(name for name, condition in CONDITIONS.items() if condition.decoder == "class_embedding")
"""Conditions that need no probes and no tuned lens."""
BATCH = 16


class Command(NamedTuple):
    """A command line without ``classlens``, and how many images pass through the model; 0 without a model."""

    name: str
    arguments: list[str]
    images: int


def data(root: Path, images: int) -> None:
    """Photos in one folder a class, as many others for training, and masks of an ellipse."""
    photos(root / "drawn", 2 * images)
    rows, columns = np.mgrid[-1:1:375j, -1:1:500j]
    mask = Image.fromarray(((rows**2 + columns**2) < 0.5).astype(np.uint8))
    for number, file in enumerate(sorted((root / "drawn" / "all").iterdir())):
        name, split = f"class {number % CLASSES:02}", "photos" if number < images else "train"
        for folder in (split, "masks"):
            (root / folder / name).mkdir(parents=True, exist_ok=True)
        file.rename(root / split / name / file.name)
        mask.save(root / "masks" / name / f"{file.stem}.png")


def commands(args: argparse.Namespace, root: Path) -> Iterator[Command]:
    """Every command that runs a model or reads what one wrote, in the order in which they need each other."""
    weights, names = str(root / "weights.safetensors"), str(root / "classes.txt")
    described = [args.model, "--checkpoint", weights, "--classes", names]
    model = ["--model", *described]
    photo = str(next((root / "photos").rglob("*.jpg")))
    source, masks = f"folder:{root / 'photos'}", ["--masks", str(root / "masks")]
    batch = ["--batch-size", str(BATCH)]

    def out(name: str) -> str:
        return str(root / name)

    yield Command("check", ["check", *described], 1)
    yield Command("inspect, one photo", ["inspect", photo, *model, "--out", out("inspect")], 1)
    yield Command("explain, one photo", ["explain", photo, *model, "--out", out("explain")], 1)
    every = ["explain", photo, *model, "--method", "all", "--out", out("methods")]
    yield Command("explain, every method", every, 1)
    blurred = ["sweep", photo, *model, "--corruption", "blur"]
    yield Command("sweep, one photo", [*blurred, "--out", out("sweep")], 1)
    estimated = [*blurred, "--approximate", "--out", out("estimates")]
    yield Command("sweep --approximate, one photo", estimated, 1)
    yield Command("memories", ["memories", *described, "--block", "0", "--unit", "0"], 0)
    given = ["measure", *model, "--data", source, *batch]
    yield Command("measure", [*given, "--out", out("clean.zarr")], args.images)
    conditions = ["--conditions", ",".join(UNTRAINED), *masks, "--out", out("all.zarr")]
    yield Command("measure, seven conditions", [*given, *conditions], args.images)
    yield Command("analyze", ["analyze", out("all.zarr"), "--out", out("analysis")], 0)
    yield Command("figures", ["figures", out("analysis")], 0)
    yield Command("check-store", ["check-store", out("all.zarr")], 0)
    evaluation = ["evaluate", *model, "--data", source, *masks, *batch, "--limit", str(CLASSES), "--steps", "7"]
    removal = ["--metrics", "removal", "--methods", "log_odds", "--out", out("removal")]
    yield Command("evaluate, removal of one method", [*evaluation, *removal], CLASSES)
    every = ["--methods", "log_odds", "--out", out("evaluation")]
    yield Command("evaluate, every metric of one method", [*evaluation, *every], CLASSES)
    tune = ["tune", *model, "--data", source, "--epochs", "1", *batch, "--out", out("lens.safetensors")]
    yield Command("tune, one epoch", tune, args.images)
    means = ["means", *model, "--data", source, *batch, "--out", out("means.safetensors")]
    yield Command("means", means, args.images)
    ablated = ["ablate", *model, "--data", source, "--to", out("means.safetensors"), *batch, "--out", out("ablation")]
    yield Command("ablate", ablated, args.images)
    probe = ["probe", *model, "--train", f"folder:{root / 'train'}", "--test", source, *batch]
    yield Command("probe, pooled", [*probe, "--pooled", "--out", out("pooled")], 2 * args.images)
    yield Command("probe", [*probe, "--out", out("probes")], 2 * args.images)
    files = ["--checkpoint", f"{args.model}={weights}", "--classes", f"{args.model}={names}"]
    paper = ["paper", "--models", args.model, *files, "--data", source, *masks, "--out", out("paper")]
    yield Command("paper", paper, args.images)


# A child begins with the peak RAM of its parent, so that a small process has to start it.
WATCH = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen([sys.executable, "-m", "classlens", *sys.argv[1:]], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
cpu, seconds = usage.ru_utime + usage.ru_stime, time.perf_counter() - start
print(json.dumps({"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "peak_mib": usage.ru_maxrss // 1024}))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run(arguments: list[str]) -> dict[str, float]:
    """Wall time, CPU time and peak RAM of a command, its workers included."""
    outcome = subprocess.run([sys.executable, "-c", WATCH, *arguments], stdout=subprocess.PIPE, text=True)
    if outcome.returncode:
        raise SystemExit(f"classlens {' '.join(arguments)}: exit code {outcome.returncode}")
    result: dict[str, float] = json.loads(outcome.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch14_dinov2")
    parser.add_argument("--img-size", type=int)
    parser.add_argument("--images", type=int, default=52)
    parser.add_argument("--only", nargs="*", help="names of commands to run, with those that write what they read")
    args = parser.parse_args()
    torch.manual_seed(0)
    size = {} if args.img_size is None else {"img_size": args.img_size}
    module: Any = timm.create_model(args.model, num_classes=CLASSES, **size).eval()
    pixels = torch.randn(BATCH, 3, *module.patch_embed.img_size)

    def bare() -> float:
        """CPU seconds of a bare pass, for one image."""
        start = time.process_time()
        with torch.no_grad():
            module(pixels)
        return (time.process_time() - start) / BATCH

    bare()
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        data(root, args.images)
        save_file(module.state_dict(), root / "weights.safetensors")
        (root / "classes.txt").write_text("".join(f"class {number:02}\n" for number in range(CLASSES)))
        start_up = 0.0
        run(next(commands(args, root)).arguments)  # libraries and weights are read from disk once
        for command in commands(args, root):
            if args.only and command.name not in ("check", *args.only):
                continue
            before, took, after = bare(), run(command.arguments), bare()
            start_up = start_up or took["cpu_seconds"]
            row: dict[str, Any] = {**took, "images": command.images}
            if command.images and command.name != "check":
                row["passes"] = round((took["cpu_seconds"] - start_up) / command.images / ((before + after) / 2), 1)
            report[command.name] = row
            print(f"{command.name}: {row}", file=sys.stderr, flush=True)
    settings = {"model": args.model, "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(json.dumps({**settings, "cpu_seconds_of_bare_pass": round(bare(), 3), "commands": report}, indent=1))


if __name__ == "__main__":
    main()
