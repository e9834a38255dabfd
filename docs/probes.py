"""Makes the numbers of the page on probes: ``python docs/probes.py cifar10:FOLDER [WORK]``.

Trains tuned lenses on 5,000 of the training images without their labels, probes on the same images with them, and
measures both on the 2,000 test images of the page on faithfulness. Figures and summaries go to ``docs/probes``.
``WORK`` keeps what was trained and measured, so that a run goes on where it stopped.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from faithfulness import MODEL, halves
from PIL import Image

import classlens
from classlens.analysis.analyze import analyze
from classlens.data.dataset import Dataset
from classlens.data.registry import open_dataset
from classlens.engine.work import Progress
from classlens.render.figures.analysis import figures
from classlens.render.folders.analysis import write_analysis
from classlens.render.folders.evaluation import write_evaluation

HERE = Path(__file__).resolve().parent
OUT = HERE / "probes"
METHODS = ("class_gradient", "class_rank", "random")
READ = ("tuned", "probe", "probe_pooled")


def lenses(train: Dataset, work: Path) -> None:
    """Prints the divergence of each block, plain and through lenses that were trained in three ways."""
    found: dict[str, classlens.TuneResult] = {}
    kinds: tuple[tuple[str, Literal["all", "pooled"], bool], ...] = (
        ("all", "all", False),
        ("pooled", "pooled", False),
        ("control", "all", True),
    )
    for name, tokens, control in kinds:
        file = work / f"{name}.safetensors"
        found[name] = classlens.tune(
            MODEL, train, file, tokens=tokens, control=control, batch_size=64, workers=0, report=_told
        )
    print("| block | plain | tuned | tuned, [CLS] alone | control |\n|---|---|---|---|---|")
    for block, row in enumerate(found["all"].blocks):
        cells = [row["plain"], row["tuned"], *(found[name].blocks[block]["tuned"] for name in ("pooled", "control"))]
        print(f"| {block} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")
    print(f"one answer for all images: {found['all'].constant:.3f}; epochs: {[one.epochs for one in found.values()]}")


def probes(train: Dataset, test: Dataset, work: Path) -> None:
    """Ridge probes of each token and pooled ones, and the lens that was trained on all tokens, in one store."""
    for kind in ("ridge", "pooled"):
        found = classlens.probe(
            MODEL,
            train,
            test,
            work / "probes",
            kind=kind,
            tuned_lens=work / "all.safetensors",
            batch_size=64,
            workers=0,
            report=_told,
        )
        print(f"{kind}: {found.trained} probes in {found.seconds:.1f} s, {found.passes} passes")


def few(train: Dataset, test: Dataset, work: Path) -> None:
    """Probes of ten images a class, as many as in the paper."""
    chosen = np.concatenate([np.flatnonzero(train.labels == label)[:10] for label in np.unique(train.labels)])
    found = classlens.probe(
        MODEL, train.subset(np.sort(chosen)), test, work / "few", batch_size=64, workers=0, report=_told
    )
    table = analyze(found.outcome.store, experiments=["decoders"]).tables["decoders"]
    rows = table.query("condition == 'probe' and site == 'resid_post' and measure == 'share_on_top'")
    print("ten images a class, share with the class on top, residual stream")
    print(rows.pivot(index="block", columns="tokens", values="value").round(3).to_string())


def report(data: str, test: Dataset, work: Path) -> None:
    """The figures: what is read by block, and token removal by each."""
    OUT.mkdir(exist_ok=True)
    store = work / "probes" / "probes.zarr"
    analysis = analyze(store, experiments=["decoders"])
    write_analysis(analysis, work / "analysis", version=classlens.__version__)
    figures(work / "analysis")
    methods = [*METHODS, *(f"stored_rank:condition={name}" for name in READ)]
    found = classlens.evaluate(
        MODEL,
        test,
        work / "evaluation",
        methods=methods,
        metrics=["removal"],
        steps=13,
        ranks=store,
        batch_size=64,
        workers=0,
        report=_told,
    )
    write_evaluation(found, work / "evaluation" / "results", version=classlens.__version__)
    for name, folder in (("decoders", "analysis"), ("removal", "evaluation/results")):
        text = (work / folder / "summary.md").read_text(encoding="utf-8")
        (OUT / f"{name}.md").write_text(text.replace(data, "cifar10:FOLDER"), encoding="utf-8")
    pictures = [work / "analysis" / "figures" / f"decoders_{tokens}.png" for tokens in ("cls", "image")]
    for picture in (*pictures, work / "evaluation" / "results" / "curves.png"):
        with Image.open(picture) as figure:
            figure.convert("RGB").quantize(128).save(OUT / picture.name, optimize=True)


def main(data: str, work: Path) -> None:
    train = open_dataset(data, split="train", per_class=500, seed=0)
    test = halves(data)[1]
    lenses(train, work)
    probes(train, test, work)
    few(train, test, work)
    report(data, test, work)


def _told(now: Progress) -> None:
    print(f"{now.doing}: {now.done} of {now.images} images", file=sys.stderr, flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("give the data, such as cifar10:/data/cifar-10")
    if len(sys.argv) > 2:
        main(sys.argv[1], Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(sys.argv[1], Path(folder))
