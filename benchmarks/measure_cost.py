"""What measuring a data set costs, as ratios to the bare forward pass in the same run.

    python benchmarks/measure_cost.py --model vit_base_patch32_224
    python benchmarks/measure_cost.py --model vit_base_patch32_224 --parts
    python benchmarks/measure_cost.py --model vit_base_patch32_224 --sweep

Prints JSON. ``reductions``: all sites of all blocks for every token and class, with memories, on ready tensors.
``command``: `classlens measure` as a whole on JPEG files, decoding and writing included, start-up apart. ``edits``: the
same pass under an edit, which computes attention in steps. Each is the median of ratios to bare passes right before
and after it, so that a machine that is busy now and then slows both. ``--parts`` times what reductions are made of, on
tensors of the same shapes, trajectories, and the reading of a JPEG file. ``--sweep`` measures how seconds and peak
memory grow with images, tokens and classes, each row in a process of its own. Weights are random, as cost does not
depend on them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timing import seconds
from torch import Tensor

import classlens
from classlens import KeepTokens, NoCls, SelfOnly
from classlens.core.depth_facts import depth_facts
from classlens.core.memories import strongest
from classlens.core.norms import token_norms
from classlens.core.scores import Facts
from classlens.core.top_tokens import TopTokens
from classlens.data.loading import Batch
from classlens.forward.agreement import Agreement, AgreementRequest, MemoryTables, Sublayer
from classlens.forward.depth_logits import DepthLogits
from classlens.forward.edits.edit import editing
from classlens.forward.streaming import reduce_tokens
from classlens.lens.lens import Lens
from classlens.models.images import open_picture
from classlens.tasks.tokens.attribution.collector import AttributionCollector
from classlens.tasks.tokens.attribution.schema import AttributionAxes

PAPER = ("attn_out", "mlp_out", "resid_post")
EVERY = ("embed", "attn_out", "resid_mid", "mlp_out", "resid_post")


def photos(folder: Path, count: int) -> None:
    """JPEG files of the size of ImageNet's, as smooth as photographs are."""
    random = np.random.default_rng(0)
    (folder / "all").mkdir(parents=True)
    for number in range(count):
        coarse = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = np.clip(picture + random.integers(-8, 9, picture.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / "all" / f"{number:05}.jpg", quality=90)


def forget(_: str, __: int, ___: Tensor | slice, ____: Facts) -> None: ...


def forget_memories(_: Sublayer, __: int, ___: Tensor | slice, ____: Agreement) -> None: ...


def costs(args: argparse.Namespace) -> dict[str, Any]:
    lens = load(args)
    module: Any = lens.view.module
    pixels = torch.randn(args.batch_size, 3, *lens.view.input_size, device=args.device)
    target = torch.randint(args.classes, (args.batch_size,), device=args.device)
    memorized = AgreementRequest(MemoryTables(lens.view), target.roll(1), forget_memories)
    kept = torch.rand(args.batch_size, lens.view.tokens(lens.view.input_size).count, device=args.device) < 0.5
    kept[:, 0] = True

    def bare() -> None:
        with torch.no_grad():
            module(pixels)

    def all_of(sites: tuple[str, ...], memories: AgreementRequest | None = memorized) -> None:
        reduce_tokens(lens.view, pixels, target, sites, forget, agreement=memories)

    def edited(*edits: Any) -> None:
        with editing(lens.view, edits):
            all_of(EVERY)

    batches = (
        Batch(
            range(first, first + args.batch_size),
            torch.randn_like(pixels).cpu().numpy(),
            np.zeros((args.batch_size, 1), np.int8),
            {},
            np.zeros(args.batch_size, np.int64),
            np.zeros((args.batch_size, 4), np.float32),
        )
        for first in itertools.count(0, args.batch_size)
    )
    tokens = lens.view.tokens(lens.view.input_size)

    def attribution(units: int) -> Callable[[], None]:
        axes = AttributionAxes.of(lens.view, args.batch_size, units)
        strongest_tokens = {group: TopTokens(axes.rows(group)) for group in axes.groups}

        def collect() -> None:
            collector = AttributionCollector(lens.view, tokens, axes, next(batches), strongest_tokens)
            logits = reduce_tokens(lens.view, pixels, target, EVERY, forget, also=collector.receivers)
            for _ in collector.groups(logits, target):
                pass

        return collect

    tasks: dict[str, Callable[[], object]] = {
        "36 sites": lambda: all_of(PAPER, None),
        "36 sites, memories": lambda: all_of(PAPER),
        "48 sites and embed, memories": lambda: all_of(EVERY),
        "48 sites and embed": lambda: all_of(EVERY, None),
        "48 sites and embed, attribution": attribution(0),
        "48 sites and embed, attribution, units": attribution(64),
        "self_only": lambda: edited(SelfOnly()),
        "no_cls": lambda: edited(NoCls()),
        "context_removed": lambda: edited(KeepTokens(kept)),
    }
    report: dict[str, Any] = {}
    for name, task in tasks.items():
        task()
        ratios = []
        for _ in range(args.repeats):
            before, took, after = seconds(bare), seconds(task), seconds(bare)
            ratios.append(took / ((before + after) / 2))
        report[name] = round(statistics.median(ratios), 3)
    return {"seconds_of_bare_pass": round(before, 3), "ratios": report, "command": command(args, lens)}


def parts(args: argparse.Namespace) -> dict[str, Any]:
    """The products and the choice of the strongest memories alone, and the CPU time of reading a photo."""
    lens = load(args)
    module: Any = lens.view.module
    pixels = torch.randn(args.batch_size, 3, *lens.view.input_size)
    rows = args.batch_size * lens.view.tokens(lens.view.input_size).count
    width, hidden = lens.view.blocks[0].mlp.weight.shape
    blocks = len(lens.view.blocks)
    states, matrix = torch.randn(rows, width), torch.randn(width, args.classes)
    coefficients = [torch.nn.functional.gelu(torch.randn(rows, count)) for count in (width, hidden)]
    product = torch.empty(rows, args.classes)

    def bare() -> None:
        with torch.no_grad():
            module(pixels)

    def products() -> None:
        for _ in range(2 * blocks + 1):
            torch.mm(states, matrix, out=product)

    def memories() -> None:
        for _ in range(blocks):
            for x in coefficients:
                strongest(x)

    tokens = states.reshape(args.batch_size, -1, width)
    final, target = torch.randn(args.batch_size, args.classes), torch.randint(args.classes, (args.batch_size,))

    def trajectory() -> None:
        depths = DepthLogits(lens.view)
        with torch.no_grad():
            for block in range(blocks):
                depths.receive(block, tokens)
            depth_facts(depths.stack(final), target, 5)

    def norms() -> None:
        for _ in range(blocks):
            token_norms(tokens)

    found: dict[str, float] = {}
    alone = {"products": products, "strongest memories": memories, "trajectory": trajectory, "norms": norms}
    for name, task in alone.items():
        task()
        ratios = []
        for _ in range(args.repeats):
            before, took, after = seconds(bare), seconds(task), seconds(bare)
            ratios.append(took / ((before + after) / 2))
        found[name] = round(statistics.median(ratios), 4)
    with tempfile.TemporaryDirectory() as scratch:
        photos(Path(scratch) / "photos", 40)
        files = sorted((Path(scratch) / "photos").rglob("*.jpg"))
        torch.set_num_threads(1)  # as in a process that decodes
        start = time.process_time()
        for file in files:
            lens.preprocessing(open_picture(file).image, file.name)
        found["cpu_milliseconds_of_reading_a_photo"] = round((time.process_time() - start) / len(files) * 1000, 1)
    return {"parts": found}


def command(args: argparse.Namespace, lens: Lens) -> dict[str, Any]:
    """The whole run over files, between bare passes over as many ready images in the same batches."""
    module: Any = lens.view.module
    pixels = torch.randn(args.batch_size, 3, *lens.view.input_size, device=args.device)

    def bare() -> None:
        left = args.images
        with torch.no_grad():
            while left > 0:
                module(pixels[: min(left, args.batch_size)])
                left -= args.batch_size

    ratios, sizes, took = [], [], 0.0
    with tempfile.TemporaryDirectory() as scratch:
        photos(Path(scratch) / "photos", args.images)
        for repeat in range(args.command_repeats):
            out = Path(scratch) / f"{repeat}.zarr"
            before = seconds(bare)
            outcome = classlens.measure(
                lens, f"folder:{scratch}/photos", out, memories=args.memories, batch_size=args.batch_size
            )
            after = seconds(bare)
            took = outcome.seconds
            ratios.append(took / ((before + after) / 2))
            data = classlens.open_store(out)["clean"]
            shards = sum(path.stat().st_size for path in (out / "clean").rglob("*") if path.is_file())
            sizes.append(shards / data.sizes["image"] / 1000)
    return {
        "images": args.images,
        "ratio": round(statistics.median(ratios), 3),
        "seconds": round(took, 2),
        "kilobytes_per_image": round(statistics.median(sizes), 1),
    }


def row(args: argparse.Namespace) -> dict[str, Any]:
    """One run in this process alone, for its peak memory."""
    lens = load(args)
    with tempfile.TemporaryDirectory() as scratch:
        photos(Path(scratch) / "photos", args.images)
        outcome = classlens.measure(
            lens,
            f"folder:{scratch}/photos",
            Path(scratch) / "out.zarr",
            memories=args.memories,
            batch_size=args.batch_size,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)
    return {
        "model": args.model,
        "images": args.images,
        "tokens": lens.view.tokens(lens.view.input_size).count,
        "classes": args.classes,
        "seconds": round(outcome.seconds, 1),
        "peak_mib": round(peak),
    }


def sweep(args: argparse.Namespace) -> list[dict[str, Any]]:
    small, large = "vit_base_patch32_224", "vit_base_patch16_224"
    rows = [(small, count, 1000) for count in (50, 100, 200, 400)]
    rows += [(large, 100, 1000), (small, 100, 21843)]
    found = []
    for model, images, classes in rows:
        options = ["--model", model, "--images", str(images), "--classes", str(classes)]
        made = subprocess.run(
            [sys.executable, __file__, "--row", *options, "--batch-size", str(args.batch_size)],
            check=True,
            capture_output=True,
            text=True,
        )
        found.append(json.loads(made.stdout))
        print(json.dumps(found[-1]), file=sys.stderr)
    return found


def load(args: argparse.Namespace) -> Lens:
    torch.manual_seed(0)
    module: Any = timm.create_model(args.model, pretrained=False, num_classes=args.classes).eval().to(args.device)
    with torch.no_grad():
        module.head.weight.normal_(std=0.1)  # a head of zeros would tie every logit
    return classlens.load(module, class_names=["all", *(f"class {number}" for number in range(1, args.classes))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_base_patch32_224")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--command-repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-memories", dest="memories", action="store_false")
    parser.add_argument("--parts", action="store_true", help="what reductions are made of, and reading a photo")
    parser.add_argument("--sweep", action="store_true", help="seconds and peak memory of several sizes")
    parser.add_argument("--row", action="store_true", help="one row of the sweep")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.row:
        print(json.dumps(row(args)))
        return
    about = {
        "model": args.model,
        "batch_size": args.batch_size,
        "classes": args.classes,
        "device": args.device,
        "threads": args.threads,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    found = {"sweep": sweep(args)} if args.sweep else parts(args) if args.parts else costs(args)
    print(json.dumps({**about, **found}, indent=1))


if __name__ == "__main__":
    main()
