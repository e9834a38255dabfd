"""Numbers of the page on probes: ``python docs/probes.py PHOTOS [WORK]``.

Trains a tuned lens on 1,300 training photos without their labels, probes on the same photos with their labels, and
measures both on 150 test photos, which are among those of the page on faithfulness. Figures and summaries go to
``docs/probes``. ``PHOTOS`` is the folder that ``docs/example.py`` takes; ``WORK`` keeps the lens, probes and stores, so
that a stopped run continues.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from faithfulness import copy_figures, drawn, print_progress

import classlens
from classlens.render.folders.analysis import write_analysis
from classlens.render.folders.evaluation import write_evaluation
from classlens.render.folders.figures import figures

MODEL = "builtin:photos"
OUT = Path(__file__).resolve().parent / "probes"
METHODS = ("class_gradient", "class_rank", "random")
DECODERS = ("tuned_lens", "probe", "probe_pooled")


def train_lens(train: classlens.Dataset, work: Path) -> None:
    """Prints the divergence of each block by the class embedding and by the tuned lens."""
    result = classlens.tune(MODEL, train, work / "lens.safetensors", batch_size=32, workers=0, report=print_progress)
    print("| block | class embedding | tuned lens |\n|---|---|---|")
    for block, row in enumerate(result.blocks):
        print(f"| {block} | {row['plain']:.3f} | {row['tuned']:.3f} |")
    print(f"one answer for all images: {result.constant:.3f}; {result.epochs} epochs")


def train_probes(train: classlens.Dataset, test: classlens.Dataset, work: Path) -> Path:
    """Ridge probes of each token, pooled probes and the tuned lens, in one store."""
    kinds: tuple[Literal["ridge", "pooled"], ...] = ("ridge", "pooled")
    for kind in kinds:
        result = classlens.probe(
            MODEL,
            train,
            test,
            work / "probes",
            kind=kind,
            tuned_lens=work / "lens.safetensors",
            batch_size=32,
            workers=0,
            report=print_progress,
        )
        print(f"{kind}: {result.trained} probes in {result.seconds:.1f} s, {result.passes} passes")
    return Path(result.run.store)


def train_few(train: classlens.Dataset, test: classlens.Dataset, work: Path) -> None:
    """Probes of ten images per class, as many as in the paper."""
    indices = np.concatenate([np.flatnonzero(train.labels == label)[:10] for label in np.unique(train.labels)])
    ten = train.subset(np.sort(indices))
    result = classlens.probe(MODEL, ten, test, work / "few", batch_size=32, workers=0, report=print_progress)
    table = classlens.analyze(result.run.store, experiments=["decoders"]).tables["decoders"]
    rows = table.query("condition == 'probe' and site == 'resid_post' and measure == 'share_on_top'")
    print("ten images per class, share with the class on top, residual stream")
    print(rows.pivot(index="block", columns="tokens", values="value").round(3).to_string())


def report(photos: Path, test: classlens.Dataset, store: Path, work: Path) -> None:
    """Figures and summaries: decoders by block, and token removal by each of them."""
    OUT.mkdir(exist_ok=True)
    analysis = classlens.analyze(store, experiments=["decoders"])
    write_analysis(analysis, work / "analysis", version=classlens.__version__)
    figures(work / "analysis", formats=["png"])
    evaluation = classlens.evaluate(
        MODEL,
        test,
        work / "evaluation",
        methods=[*METHODS, *(f"stored_rank:condition={name}" for name in DECODERS)],
        metrics=["removal"],
        steps=7,
        permutations=3,
        ranks=store,
        batch_size=32,
        workers=0,
        report=print_progress,
    )
    write_evaluation(evaluation, work / "evaluation" / "results", version=classlens.__version__)
    for name, folder in (("decoders", "analysis"), ("removal", "evaluation/results")):
        text = (work / folder / "summary.md").read_text(encoding="utf-8")
        (OUT / f"{name}.md").write_text(text.replace(str(photos), "PHOTOS"), encoding="utf-8")
    copy_figures(work / "analysis" / "figures", OUT)
    copy_figures(work / "evaluation" / "results", OUT)


def main(photos: Path, work: Path) -> None:
    train = classlens.open_dataset(f"folder:{photos / 'train'}", per_class=100, seed=0)
    test = drawn(classlens.open_dataset(f"folder:{photos / 'test'}"), 150)
    train_lens(train, work)
    store = train_probes(train, test, work)
    train_few(train, test, work)
    report(photos, test, store, work)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("give the folder of the photos")
    if len(sys.argv) > 2:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(sys.argv[1]), Path(folder))
