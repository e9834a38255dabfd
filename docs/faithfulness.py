"""Numbers of the page on faithfulness: ``python docs/faithfulness.py search|report|others DATA [WORK]``.

``search cifar10:FOLDER`` compares candidates for a better map by token removal on 1,000 test images of CIFAR-10 with
``builtin:cifar10``; the best one is the method ``log_odds``. ``report PHOTOS`` measures all methods on test photos with
``builtin:photos`` and with the model from which it was distilled, and writes summaries and figures to
``docs/evaluate``. ``others PHOTOS`` measures maps of other tools beside them. ``PHOTOS`` is the folder that
``docs/example.py`` takes. ``WORK`` keeps the stores, so that a stopped run continues.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from example import TEACHER, has_mask, model_options, open_photos
from PIL import Image
from torch import Tensor

import classlens
from classlens.explain.method import Method
from classlens.explain.registry import METHODS
from classlens.forward.differentiable import attention_weights
from classlens.forward.recording import Recording
from classlens.render.folders.evaluation import write_evaluation

HERE = Path(__file__).resolve().parent


class Parts(NamedTuple):
    """Maps ``[image, class, block, head, token]`` of all classes, and weights ``[image, block, head, token]``."""

    gradients: Tensor
    contributions: Tensor
    attention: Tensor
    logits: Tensor


Candidate = Callable[[Parts, Tensor], Tensor]


@lru_cache(maxsize=1)
def parts_of(recording: Recording) -> Parts:
    view = recording.view

    def all_classes(method: str, **options: str) -> Tensor:
        targets = (torch.full((len(recording),), category) for category in range(view.num_classes))
        return torch.stack([METHODS[method].run(recording, target, **options) for target in targets], dim=1)

    weights, _ = attention_weights(view, recording.pixels)
    attention = torch.stack([block[:, :, 0, 1:] for block in weights], dim=1)
    gradients = all_classes("class_gradient", loss="logit")
    return Parts(gradients, all_classes("logit_attribution"), attention, recording.logits)


def of_target(maps: Tensor, target: Tensor) -> Tensor:
    return maps[torch.arange(len(target)), target]


def equal_blocks(maps: Tensor) -> Tensor:
    """Every block scaled to the same total strength."""
    return maps / maps.abs().sum(dim=(2, 3), keepdim=True)


def by_depth(maps: Tensor) -> Tensor:
    blocks = maps.shape[1]
    return maps * torch.linspace(1 / blocks, 1, blocks)[:, None, None]


def rivals(parts: Parts, target: Tensor) -> Tensor:
    """Logits of all classes but the target."""
    return parts.logits.scatter(1, target[:, None], -torch.inf)


def minus_rivals(maps: Tensor, parts: Parts, target: Tensor, temperature: float = 1.0) -> Tensor:
    weights = (rivals(parts, target) / temperature).softmax(dim=1)
    return of_target(maps, target) - torch.einsum("ic,icbht->ibht", weights, maps)


def gradient_times_attention(parts: Parts, target: Tensor) -> Tensor:
    return of_target(parts.gradients, target) * parts.attention


def contribution(parts: Parts, target: Tensor) -> Tensor:
    return of_target(parts.contributions, target)


def log_odds(parts: Parts, target: Tensor) -> Tensor:
    return minus_rivals(parts.contributions, parts, target)


CANDIDATES: Mapping[str, Candidate] = {
    "class gradient, logit": lambda parts, target: of_target(parts.gradients, target),
    "gradient × attention": gradient_times_attention,
    "gradient × attention, positive part": lambda *given: gradient_times_attention(*given).clamp_min(0),
    "gradient × attention, equal blocks": lambda *given: equal_blocks(gradient_times_attention(*given)),
    "gradient × attention, weighted by depth": lambda *given: by_depth(gradient_times_attention(*given)),
    "logit attribution": contribution,
    "logit attribution, positive part": lambda *given: contribution(*given).clamp_min(0),
    "logit attribution, equal blocks": lambda *given: equal_blocks(contribution(*given)),
    "logit attribution, weighted by depth": lambda *given: by_depth(contribution(*given)),
    "logit attribution minus the mean of all classes": lambda parts, target: (
        contribution(parts, target) - parts.contributions.mean(dim=1)
    ),
    "logit attribution minus the closest rival": lambda parts, target: (
        contribution(parts, target) - of_target(parts.contributions, rivals(parts, target).argmax(dim=1))
    ),
    "logit attribution minus the rivals by softmax: log odds": log_odds,
    "log odds, equal blocks": lambda *given: equal_blocks(log_odds(*given)),
    "log odds, rivals at half the temperature": lambda parts, target: minus_rivals(
        parts.contributions, parts, target, temperature=0.5
    ),
    "log odds by gradient × attention": lambda parts, target: (
        minus_rivals(parts.gradients, parts, target) * parts.attention
    ),
}


def run_candidate(candidate: Candidate, recording: Recording, target: Tensor) -> Tensor:
    return candidate(parts_of(recording), target)


def register_candidates() -> dict[str, str]:
    """Candidates become methods; returns the label of each method, the paper's own first."""
    labels = {"class_gradient": "class gradient, cross-entropy (the paper)"}
    for label, candidate in CANDIDATES.items():
        name = "candidate_" + re.sub(r"\W+", "_", label)
        dims = ("image", "block", "head", "token")
        METHODS.register(name, Method(run=partial(run_candidate, candidate), dims=dims, label=label, about=label))
        labels[name] = label
    return labels


def drawn(dataset: classlens.Dataset, number: int) -> classlens.Dataset:
    """Images drawn without regard to their class; fewer are a part of more."""
    return dataset.subset(np.sort(np.random.default_rng(0).permutation(len(dataset))[:number]))


def search(data: str, work: Path) -> None:
    """Prints a row per candidate: the areas of both directions of removal, and their difference."""
    labels = register_candidates()
    scores = classlens.evaluate(
        "builtin:cifar10",
        drawn(classlens.open_dataset(data, split="test"), 1000),
        work / "search",
        methods=list(labels),
        metrics=["removal"],
        steps=13,
        batch_size=64,
        workers=0,
        report=print_progress,
    ).scores.pivot(index="method", columns="measure", values="value")
    print("| candidate | least first ↑ | most first ↓ | difference ↑ |\n|---|---|---|---|")
    for name, label in labels.items():
        negative, positive = scores.loc[name, ["negative_auc", "positive_auc"]]
        print(f"| {label} | {negative:.3f} | {positive:.3f} | {negative - positive:.3f} |")


class Part(NamedTuple):
    """Metrics that are measured on the same photos."""

    name: str
    metrics: tuple[str, ...]
    photos: dict[str, int]
    """Number of photos by model: fewer where a metric takes more forward passes, 0 for all photos with masks."""
    methods: Sequence[str] | Literal["all"] = "all"


SMALL, LARGE = "builtin:photos", TEACHER
RIVALS = ("class_gradient", "chefer", "logit_attribution", "log_odds", "random")
PARTS = (
    Part("removal", ("removal", "completeness"), {SMALL: 1000, LARGE: 1000}),
    Part("segmentation", ("segmentation",), {SMALL: 0, LARGE: 0}),
    Part("class", ("pointing", "class_sensitivity"), {SMALL: 1000, LARGE: 1000}),
    Part("masking", ("masking", "masking_black", "masking_blur"), {SMALL: 500, LARGE: 500}, RIVALS),
    Part("randomization", ("randomization",), {SMALL: 200, LARGE: 200}),
)
# Maps of captum, pytorch-grad-cam and torchcam, beside methods of classlens.
TOOLS = (
    *("captum_maps.py:integrated_gradients", "captum_maps.py:saliency"),
    *("grad_cam_maps.py:gradcam", "torchcam_maps.py:layer_cam"),
)
BESIDE = ("log_odds", "chefer", "class_gradient", "grad_cam", "random", *(f"{HERE / 'maps' / tool}" for tool in TOOLS))
OTHERS = (
    Part("others", ("removal", "insertion", "deletion"), {SMALL: 64}, BESIDE),
    Part("others", ("removal",), {LARGE: 32}, BESIDE),
)


def report(
    photos: str,
    work: Path,
    models: Sequence[str] = (SMALL, LARGE),
    parts: Sequence[Part] = PARTS,
    suffix: str = "",
) -> None:
    dataset = open_photos(Path(photos))
    masked = dataset.subset(np.flatnonzero([has_mask(Path(photos), name) for name in dataset.names]))
    out = HERE / "evaluate"
    out.mkdir(exist_ok=True)
    for model in models:
        stem = model.partition(":")[2] or model
        results = [
            classlens.evaluate(
                model,
                drawn(dataset, part.photos[model]) if part.photos[model] else masked,
                work / stem / part.name,
                methods=part.methods,
                metrics=part.metrics,
                steps=7,
                permutations=3,
                batch_size=64,
                workers=0,
                skip_bad=True,
                report=print_progress,
                **model_options(model, Path(photos)),
            )
            for part in parts
            if model in part.photos
        ]
        # A table without rows would turn the columns of the others into objects.
        tables = {
            name: pd.concat([table for result in results if not (table := getattr(result, name)).empty])
            for name in ("scores", "curves")
        }
        folder = work / stem / f"results{suffix}"
        write_evaluation(replace(results[0], **tables), folder, version=classlens.__version__)
        (out / f"{stem}{suffix}.md").write_text((folder / "summary.md").read_text(encoding="utf-8"), encoding="utf-8")
        copy_figures(folder, out, f"{stem}{suffix}_")


def copy_figures(folder: Path, out: Path, prefix: str = "") -> None:
    for picture in folder.glob("*.png"):
        with Image.open(picture) as figure:
            figure.convert("RGB").quantize(128).save(out / f"{prefix}{picture.name}", optimize=True)


def print_progress(progress: classlens.Progress) -> None:
    print(f"{progress.doing}: {progress.done} of {progress.images} images", file=sys.stderr, flush=True)


RUNS: Mapping[str, Callable[[str, Path], None]] = {
    "search": search,
    "report": report,
    "others": partial(report, parts=OTHERS, suffix="_others"),
}

if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in RUNS:
        raise SystemExit(f"give {', '.join(RUNS)}, and the data, such as cifar10:/data/cifar-10 or photos")
    run = RUNS[sys.argv[1]]
    if len(sys.argv) > 3:
        run(sys.argv[2], Path(sys.argv[3]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            run(sys.argv[2], Path(folder))
