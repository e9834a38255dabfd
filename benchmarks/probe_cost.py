"""What linear probes of every token cost, in bare forward passes over the same images in the same run.

    python benchmarks/probe_cost.py --model vit_base_patch32_224 --images 1024 --ram 8GB

Prints JSON, in bare passes: ``train_passes``, the passes over the training images that the memory asks for, with the
sums of all probes; ``solve_passes``, the solves (``solve_seconds`` do not grow with images); ``test_passes``, the test
images with all probes, the class projection not included. ``peak_gib_training`` is the memory of the process above that
after loading. Three sites of every block and all tokens: the published code runs one pass for each. Pixels and weights
are random and at hand, as cost does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

import classlens
from classlens.core.probes import LinearProbes
from classlens.data.dataset import ClassName, Dataset
from classlens.data.loading import Batch
from classlens.engine.model_source import ModelSource
from classlens.engine.progress import Tracker, no_report
from classlens.engine.ram import parse_ram
from classlens.engine.runner import BatchResult
from classlens.engine.session import RunOptions, Session
from classlens.engine.task import Job
from classlens.forward.streaming import reduce_tokens
from classlens.store.probe_folder import ProbeFolder
from classlens.tasks.probes import training
from classlens.tasks.probes.plan import all_probe_tokens
from classlens.tasks.probes.ridge import RidgeSums
from classlens.tasks.probes.training import ProbeTrainer

SITES = ("attn_out", "mlp_out", "resid_post")


class Nothing:
    """Images of which only the number counts."""

    has_masks = False

    def picture(self, place: int) -> Image.Image:
        raise AssertionError("pixels are at hand")

    def masks(self, place: int) -> tuple[None, None]:
        return None, None

    def content(self, place: int) -> int:
        return 0


class PixelsAtHand(Session):
    """A session that reads no image files."""

    def stream(self, job: Job, first: int = 0) -> Iterator[BatchResult]:
        """The states of random pixels."""
        measurer = job.task.measurer(job)
        pixels = torch.randn(job.batch_size, *job.shape).numpy()
        for start in range(first, len(job.dataset), job.batch_size):
            images = range(start, min(start + job.batch_size, len(job.dataset)))
            nothing = np.zeros((len(images), 1), np.int8)
            content = np.zeros(len(images), np.int64)
            frames = np.zeros((len(images), 4), np.float32)
            batch = Batch(images, pixels[: len(images)], nothing, {}, content, frames)
            yield BatchResult(images, dict(measurer.measure(batch, job.task.groups)), {}, content)


class TimedSums(RidgeSums):
    """Sums that add up the time of their solves."""

    seconds = 0.0

    def solve(self, alpha: float = 1.0, *, dtype: torch.dtype = torch.float32) -> LinearProbes:
        """The probes."""
        start = time.perf_counter()
        probes = super().solve(alpha, dtype=dtype)
        TimedSums.seconds += time.perf_counter() - start
        return probes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="vit_base_patch32_224")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--test-images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--test-batch-size", type=int, default=64)
    parser.add_argument("--ram", default="8GB")
    given = parser.parse_args()
    module: Any = timm.create_model(given.model).eval()
    torch.nn.init.trunc_normal_(module.head.weight, std=0.02)
    lens = classlens.load(module)
    view = lens.view
    pixels = torch.randn(given.batch_size, 3, *view.input_size)
    labels = np.random.default_rng(0).integers(0, view.num_classes, given.images)
    names = [f"{number}" for number in range(given.images)]
    classes = [ClassName(name) for name in lens.classes.names]
    data = Dataset.whole("made:here", None, names, labels, classes, Nothing())

    def bare(images: int) -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(0, images, given.batch_size):
                module(pixels)
        return (time.perf_counter() - start) / images

    bare(2 * given.batch_size)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        files = ProbeFolder(Path(folder) / "probe")
        options = RunOptions(batch_size=given.batch_size)
        session = PixelsAtHand(ModelSource(lens, {}), data, options, labeled=False)
        session.labels = labels
        training.RidgeSums = TimedSums  # type: ignore[attr-defined]
        trainer = ProbeTrainer(session, "ridge", 1.0, files)
        tokens = all_probe_tokens(view, SITES, range(session.tokens.count))
        planned = trainer.plan(tokens, parse_ram(given.ram))
        before = bare(128)
        start = time.perf_counter()
        trainer.train(planned, Tracker(no_report, len(planned.passes) * given.images))
        whole = time.perf_counter() - start
        between = bare(128)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - loaded
        target = torch.zeros(given.test_batch_size, dtype=torch.int64)
        several = torch.randn(given.test_batch_size, 3, *view.input_size)
        start = time.perf_counter()
        for _ in range(0, given.test_images, given.test_batch_size):
            reduce_tokens(view, several, target, SITES, lambda *_: None, probes=files.probes)
        tested = (time.perf_counter() - start) / given.test_images
        after = bare(128)
        size = sum(path.stat().st_size for path in files.folder.iterdir())
    train = (before + between) / 2 * given.images
    result = {
        "model": given.model,
        "images": given.images,
        "batch_size": given.batch_size,
        "test_batch_size": given.test_batch_size,
        "ram": given.ram,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "probes": trainer.trained,
        "passes_over_the_images": len(planned.passes),
        "images_held": planned.buffer,
        "train_passes": round((whole - TimedSums.seconds) / train, 2),
        "solve_passes": round(TimedSums.seconds / train, 2),
        "solve_seconds": round(TimedSums.seconds, 1),
        "test_passes": round(2 * tested / (between + after), 2),
        "probes_gb_on_disk": round(size / 1e9, 2),
        "peak_gib_training": round(peak / 2**20, 2),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
