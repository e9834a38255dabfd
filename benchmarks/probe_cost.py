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
from torch import Tensor

import classlens
from classlens.data.dataset import ClassName, Dataset
from classlens.engine.ram import bytes_of
from classlens.forward.streaming import reduce_tokens
from classlens.store.probe_folder import ProbeFolder
from classlens.tasks.probes.plan import places_of
from classlens.tasks.probes.probe import _Trainer

SITES = ("attn_out", "mlp_out", "resid_post")


class Nothing:
    """Images of which only the number counts."""

    has_masks = False

    def picture(self, place: int) -> Image.Image:
        raise AssertionError("pixels are at hand")

    def mask(self, place: int) -> None:
        return None

    def ignored(self, place: int) -> None:
        return None

    def size(self, place: int) -> int:
        return 0


class Trainer(_Trainer):
    """Trains on pixels that are at hand, and tells apart the time of passes and of solves."""

    pixels: Tensor
    sweeping = 0.0

    def _batches(self) -> Iterator[tuple[range, Tensor, Tensor]]:
        for start in range(0, len(self._labels), self._batch_size):
            part = range(start, min(start + self._batch_size, len(self._labels)))
            yield part, self.pixels[: len(part)], self._labels[part.start : part.stop]

    def _sweep(self, *given: Any) -> None:
        start = time.perf_counter()
        super()._sweep(*given)
        self.sweeping += time.perf_counter() - start


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
        shape = (3, *view.input_size)
        trainer = Trainer(lens, data, labels, "ridge", 1.0, files, given.batch_size, 0, False, shape)
        trainer.pixels = pixels
        places = places_of(view, SITES, range(view.tokens(view.input_size).count))
        planned = trainer.plan(places, bytes_of(given.memory))
        before = bare(128)
        start = time.perf_counter()
        trainer.train(planned, lambda doing, done: None)
        whole = time.perf_counter() - start
        between = bare(128)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - loaded
        target = torch.zeros(given.test_batch_size, dtype=torch.int64)
        several = torch.randn(given.test_batch_size, 3, *view.input_size)
        start = time.perf_counter()
        for _ in range(0, given.test_images, given.test_batch_size):
            reduce_tokens(view, several, target, SITES, lambda *_: None, probes=files.at)
        tested = (time.perf_counter() - start) / given.test_images
        after = bare(128)
        size = sum(path.stat().st_size for path in files.folder.iterdir())
    train = (before + between) / 2 * given.images
    solving = whole - trainer.sweeping
    result = {
        "model": given.model,
        "images": given.images,
        "batch_size": given.batch_size,
        "test_batch_size": given.test_batch_size,
        "memory": given.memory,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "probes": trainer.trained,
        "passes_over_the_images": len(planned.passes),
        "images_held": planned.buffer,
        "train_passes": round(trainer.sweeping / train, 2),
        "solve_passes": round(solving / train, 2),
        "solve_seconds": round(solving, 1),
        "test_passes": round(2 * tested / (between + after), 2),
        "probes_gb_on_disk": round(size / 1e9, 2),
        "peak_gib_training": round(peak / 2**20, 2),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
