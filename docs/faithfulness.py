"""Makes the numbers of the faithfulness page: ``python docs/faithfulness.py search|report cifar10:FOLDER [WORK]``.

``search`` compares candidates for a better map by token removal on 1,000 test images; what was learned from them is the
method ``log_odds``. ``report`` measures all methods on 2,000 other test images, and puts summary and figures into
``docs/evaluate``. ``WORK`` keeps the store, so that a run goes on where it stopped.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import classlens
from classlens.data.class_mapping import map_classes
from classlens.data.dataset import Dataset
from classlens.data.registry import open_dataset
from classlens.engine.work import Progress
from classlens.forward.attention import attention_weights
from classlens.render.folders.evaluation import write_evaluation
from classlens.tasks.evaluation.cascade import Cascade
from classlens.tasks.evaluation.curves import trapezoid
from classlens.tasks.evaluation.evaluate import STORE
from classlens.tasks.evaluation.image_batch import EvaluationBatch, Settings
from classlens.tasks.evaluation.method_spec import parse_methods
from classlens.tasks.evaluation.removal import Removal

MODEL = "builtin:cifar10"
HERE = Path(__file__).resolve().parent
BATCH = 100


def halves(data: str) -> tuple[Dataset, Dataset]:
    """The images of the search, and those of the report."""
    whole = open_dataset(data, split="test")
    order = np.random.default_rng(0).permutation(len(whole))
    return whole.subset(np.sort(order[:1000])), whole.subset(np.sort(order[1000:3000]))


def candidates(lens: classlens.Lens, pixels: Tensor, target: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Maps ``[image, block, head, token]`` of what was tried."""
    trace = lens.trace(pixels, batch_size=BATCH)
    classes = [torch.full_like(target, each) for each in range(lens.view.num_classes)]

    def of(method: str, **options: str) -> Tensor:
        return torch.stack([torch.as_tensor(trace.explain(one, method=method, **options).values) for one in classes], 1)

    attention = torch.stack([one[:, :, 0, 1:] for one in attention_weights(lens.view, pixels)], dim=1)
    gradients, added = of("class_gradient", loss="logit"), of("logit_attribution")
    logits = trace.recording.logits.gather(1, target[:, None])
    rivals = trace.recording.logits.masked_fill(trace.recording.logits == logits, -torch.inf)
    own = torch.arange(len(target)), target
    depth = torch.linspace(1 / 6, 1, 6)[:, None, None]

    def even(maps: Tensor) -> Tensor:
        """Every block as strong as the others."""
        return maps / maps.abs().sum(dim=(2, 3), keepdim=True)

    def less_rivals(maps: Tensor, temperature: float = 1.0) -> Tensor:
        shares = (rivals / temperature).softmax(dim=1)
        return maps[own] - torch.einsum("ic,icbht->ibht", shares, maps)

    product = gradients[own] * attention
    yield "class gradient, cross-entropy (the paper)", torch.as_tensor(trace.explain(target).values)
    yield "class gradient, logit", gradients[own]
    yield "gradient × attention", product
    yield "gradient × attention, positive part", product.clamp_min(0)
    yield "gradient × attention, blocks even", even(product)
    yield "gradient × attention, blocks by depth", product * depth
    yield "logit attribution", added[own]
    yield "logit attribution, positive part", added[own].clamp_min(0)
    yield "logit attribution, blocks even", even(added[own])
    yield "logit attribution, blocks by depth", added[own] * depth
    yield "logit attribution, less the mean of all classes", added[own] - added.mean(dim=1)
    yield (
        "logit attribution, less the closest rival",
        added[own] - added[torch.arange(len(target)), rivals.argmax(dim=1)],
    )
    yield "logit attribution, less the rivals by softmax: log odds", less_rivals(added)
    yield "log odds, blocks even", even(less_rivals(added))
    yield "log odds, rivals at half the temperature", less_rivals(added, 0.5)
    yield "log odds by gradient × attention", less_rivals(gradients) * attention


def search(data: str) -> None:
    """Prints a row for each candidate: areas of both directions of removal, and their difference."""
    lens, dataset = classlens.load(MODEL), halves(data)[0]
    labels = torch.as_tensor(map_classes(dataset, lens.classes, model_name=MODEL))
    pixels = torch.stack([lens.preprocessing(dataset.picture(index), "") for index in range(len(dataset))])
    (any_method,) = parse_methods("class_gradient")
    found: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(dataset), BATCH):
        part = slice(start, start + BATCH)
        for name, maps in candidates(lens, pixels[part], labels[part]):
            seen = EvaluationBatch(
                lens, Settings(steps=13), pixels[part], labels[part], np.empty((BATCH, 0)), start, _no_twin, trust=True
            )
            seen._maps[any_method.text] = maps.sum(dim=(1, 2))
            found.setdefault(name, []).append(Removal().measure(seen, any_method)["correct"])
        print(f"{start + BATCH} of {len(dataset)} images", file=sys.stderr, flush=True)
    numbers = Removal().shape(lens, lens.view.tokens((32, 32)), any_method, Settings(steps=13)).coords["kept"]
    area = trapezoid(1 - numbers / numbers[0])
    print("| candidate | least first ↑ | most first ↓ | difference ↑ |\n|---|---|---|---|")
    for name, parts in found.items():
        negative, positive = (float(one) for one in area(np.concatenate(parts).mean(axis=0)))
        print(f"| {name} | {negative:.3f} | {positive:.3f} | {negative - positive:.3f} |")


def report(data: str, work: Path) -> None:
    """Every eighth image alone for the randomization of weights, which costs as much as the rest together."""
    images = halves(data)[1]
    metrics = ["removal", "masking", "pointing", "class_sensitivity", "completeness"]
    some = images.subset(np.arange(0, len(images), 8))
    out = HERE / "evaluate"
    out.mkdir(exist_ok=True)
    for name, chosen, measured in (("summary", images, metrics), ("randomization", some, ["randomization"])):
        found = classlens.evaluate(
            MODEL, chosen, work / name, metrics=measured, steps=13, batch_size=64, workers=0, report=_told
        )
        results = work / name / "results"
        write_evaluation(found, results, version=classlens.__version__)
        (out / f"{name}.md").write_text((results / "summary.md").read_text(encoding="utf-8"), encoding="utf-8")
        for picture in results.glob("*.png"):
            with Image.open(picture) as figure:
                figure.convert("RGB").quantize(128).save(out / picture.name, optimize=True)
    unseen(data, work)


def unseen(data: str, work: Path) -> None:
    """Prints the plain areas of removal without the images on which the idea was first tried, before this file."""
    tried = set(open_dataset(data, split="test", limit=2000, seed=0).names[::2])
    print("| method | images | least first ↑ | most first ↓ |\n|---|---|---|---|")
    for method in ("class_gradient", "chefer", "legrad", "logit_attribution", "log_odds"):
        found = classlens.open_store(work / "summary" / STORE, f"removal.{method}").load()
        found = found.isel(image=[name not in tried for name in found["image"].values])
        scores = {score.measure: score for score in Removal().scores(found, classlens.Statistics())}
        negative, positive = scores["negative_auc"], scores["positive_auc"]
        cells = (f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for one in (negative, positive))
        print(f"| {method} | {negative.images} | {' | '.join(cells)} |")


def _told(now: Progress) -> None:
    print(f"{now.done} of {now.images} images", file=sys.stderr, flush=True)


def _no_twin() -> Cascade:
    raise AssertionError("the search makes no weights random")


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("search", "report"):
        raise SystemExit("give search or report, and the data, such as cifar10:/data/cifar-10")
    if sys.argv[1] == "search":
        search(sys.argv[2])
    elif len(sys.argv) > 3:
        report(sys.argv[2], Path(sys.argv[3]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            report(sys.argv[2], Path(folder))
