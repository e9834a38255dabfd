"""Numbers of the page on probes: ``python docs/probes.py PHOTOS [WORK]``.

For the built-in model and the one from which it was distilled: trains a tuned lens on 1,300 training photos without
their labels, with its control, probes on the same photos with their labels, and measures all of them on the test
photos, and token removal on 1,000 of these, which are those of the page on faithfulness. Figures and summaries go to
``docs/probes``. ``PHOTOS`` is the folder that ``docs/example.py`` takes; ``WORK`` keeps the lens, probes and stores, so
that a stopped run continues.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from example import TEACHER, model_options
from faithfulness import copy_figures, drawn, print_progress

import classlens
from classlens.render.folders.analysis import write_analysis
from classlens.render.folders.evaluation import write_evaluation
from classlens.render.folders.figures import figures

MODELS = ("builtin:photos", TEACHER)
OUT = Path(__file__).resolve().parent / "probes"
METHODS = ("class_gradient", "class_rank", "random")
DECODERS = ("tuned_lens", "probe", "probe_pooled")


class Study(NamedTuple):
    """A model with the photos and the folder of its results."""

    model: str
    photos: Path
    train: classlens.Dataset
    test: classlens.Dataset
    work: Path

    @property
    def options(self) -> dict[str, Any]:
        common = {"batch_size": 32, "workers": 0, "skip_bad": True, "report": print_progress}
        return {**common, **model_options(self.model, self.photos)}

    @property
    def stem(self) -> str:
        return self.model.partition(":")[2] or self.model


def train_lens(study: Study) -> None:
    """Prints the divergence of each block by the class embedding, the tuned lens and its control."""
    result = classlens.tune(study.model, study.train, study.work / "lens.safetensors", **study.options)
    control = classlens.tune(
        study.model, study.train, study.work / "control.safetensors", control=True, **study.options
    )
    print("| block | class embedding | tuned lens | control |\n|---|---|---|---|")
    for block, (row, other) in enumerate(zip(result.blocks, control.blocks, strict=True)):
        print(f"| {block} | {row['plain']:.3f} | {row['tuned']:.3f} | {other['tuned']:.3f} |")
    print(f"one answer for all images: {result.constant:.3f}; {result.epochs} epochs")
    print(f"control: one answer {control.constant:.3f}; {control.epochs} epochs")


def train_probes(study: Study) -> Path:
    """Ridge probes of each token, pooled probes and the tuned lens, in one store."""
    kinds: tuple[Literal["ridge", "pooled"], ...] = ("ridge", "pooled")
    for kind in kinds:
        result = classlens.probe(
            study.model,
            study.train,
            study.test,
            study.work / "probes",
            kind=kind,
            tuned_lens=study.work / "lens.safetensors",
            **study.options,
        )
        print(f"{kind}: {result.trained} probes in {result.seconds:.1f} s, {result.passes} passes")
    return Path(result.run.store)


def train_few(study: Study) -> None:
    """Probes of ten images per class, as many as in the paper."""
    labels = study.train.labels
    indices = np.concatenate([np.flatnonzero(labels == label)[:10] for label in np.unique(labels)])
    ten = study.train.subset(np.sort(indices))
    result = classlens.probe(study.model, ten, study.test, study.work / "few", **study.options)
    table = classlens.analyze(result.run.store, experiments=["decoders"]).tables["decoders"]
    rows = table.query("condition == 'probe' and site == 'resid_post' and measure == 'share_on_top'")
    print("ten images per class, share with the class on top, residual stream")
    print(rows.pivot(index="block", columns="tokens", values="value").round(3).to_string())


def report(study: Study, store: Path) -> None:
    """Figures and summaries: decoders by block, and token removal by each of them."""
    OUT.mkdir(exist_ok=True)
    analysis = classlens.analyze(store, experiments=["decoders"])
    write_analysis(analysis, study.work / "analysis", version=classlens.__version__)
    figures(study.work / "analysis", formats=["png"])
    evaluation = classlens.evaluate(
        study.model,
        drawn(study.test, 1000),
        study.work / "evaluation",
        methods=[*METHODS, *(f"stored_rank:condition={name}" for name in DECODERS)],
        metrics=["removal"],
        steps=7,
        permutations=3,
        ranks=store,
        **study.options,
    )
    write_evaluation(evaluation, study.work / "evaluation" / "results", version=classlens.__version__)
    for name, folder in (("decoders", "analysis"), ("removal", "evaluation/results")):
        text = (study.work / folder / "summary.md").read_text(encoding="utf-8")
        shown = text.replace(str(study.photos), "PHOTOS")
        (OUT / f"{study.stem}_{name}.md").write_text(shown, encoding="utf-8")
    copy_figures(study.work / "analysis" / "figures", OUT, f"{study.stem}_")
    copy_figures(study.work / "evaluation" / "results", OUT, f"{study.stem}_")


def main(photos: Path, work: Path) -> None:
    train = classlens.open_dataset(f"folder:{photos / 'train'}", per_class=100, seed=0)
    test = classlens.open_dataset(f"folder:{photos / 'test'}")
    for model in MODELS:
        study = Study(model, photos, train, test, work / (model.partition(":")[2] or model))
        study.work.mkdir(parents=True, exist_ok=True)
        print(model)
        train_lens(study)
        store = train_probes(study)
        train_few(study)
        report(study, store)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("give the folder of the photos")
    if len(sys.argv) > 2:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(sys.argv[1]), Path(folder))
