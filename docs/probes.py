"""Numbers of the page on probes: ``python docs/probes.py PHOTOS [WORK]``.

For ``builtin:photos`` and the model from which it was distilled: trains a tuned lens on 1,300 training photos without
their labels, probes on the same photos with their labels, and measures them on the 1,650 test photos. Token removal by
their ranks takes 500 drawn photos for the built-in model, and 150 for the other. The control of the tuned
lens is of the built-in model.
Figures and summaries go to ``docs/probes``. ``PHOTOS`` is the folder that ``docs/example.py`` takes; ``WORK`` keeps the
lenses, probes and stores, so that a stopped run continues.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from example import TEACHER, model_options
from faithfulness import copy_figures, drawn, print_progress

import classlens
from classlens.render.folders.analysis import write_analysis
from classlens.render.folders.evaluation import write_evaluation
from classlens.render.folders.figures import figures

OUT = Path(__file__).resolve().parent / "probes"
METHODS = ("class_gradient", "class_rank", "random")
DECODERS = ("tuned_lens", "probe", "probe_pooled")
# Photos of token removal: one pass of the larger model takes as long as eight of the built-in one.
REMOVAL_PHOTOS = {"builtin:photos": 500, TEACHER: 150}
EPOCHS = {"builtin:photos": 30, TEACHER: 10}


def train_lenses(model: str, train: classlens.Dataset, work: Path, options: dict[str, Any]) -> None:
    """Prints the divergence of each block by the class embedding, by the tuned lens and by its control."""
    results = {}
    for name in ("lens", "control") if model == "builtin:photos" else ("lens",):
        record = work / f"{name}.json"
        if not record.exists():
            result = classlens.tune(
                model,
                train,
                work / f"{name}.safetensors",
                epochs=EPOCHS[model],
                control=name == "control",
                batch_size=32,
                workers=0,
                report=print_progress,
                **options,
            )
            record.write_text(json.dumps([result.blocks, result.constant, result.epochs]), encoding="utf-8")
        results[name] = json.loads(record.read_text(encoding="utf-8"))
    blocks, constant, epochs = results["lens"]
    print(f"\n{model}: one answer for all images: {constant:.3f}; {epochs} epochs")
    print(f"| block | class embedding | {' | '.join(results)} |\n|---|---|{'---|' * len(results)}")
    for block, row in enumerate(blocks):
        tuned = " | ".join(f"{rows[block]['tuned']:.3f}" for rows, _, _ in results.values())
        print(f"| {block} | {row['plain']:.3f} | {tuned} |", flush=True)


def train_probes(
    model: str, train: classlens.Dataset, test: classlens.Dataset, work: Path, options: dict[str, Any]
) -> Path:
    """Ridge probes of each token, pooled probes and the tuned lens, in one store."""
    kinds: tuple[Literal["ridge", "pooled"], ...] = ("ridge", "pooled")
    for kind in kinds:
        result = classlens.probe(
            model,
            train,
            test,
            work / "probes",
            kind=kind,
            tuned_lens=work / "lens.safetensors",
            batch_size=32,
            workers=0,
            report=print_progress,
            **options,
        )
        print(f"{kind}: {result.trained} probes in {result.seconds:.1f} s, {result.passes} passes", flush=True)
    return Path(result.run.store)


def train_few(
    model: str, train: classlens.Dataset, test: classlens.Dataset, work: Path, options: dict[str, Any]
) -> None:
    """Probes of ten images per class, as many as in the paper."""
    indices = np.concatenate([np.flatnonzero(train.labels == label)[:10] for label in np.unique(train.labels)])
    ten = train.subset(np.sort(indices))
    result = classlens.probe(model, ten, test, work / "few", batch_size=32, workers=0, report=print_progress, **options)
    table = classlens.analyze(result.run.store, experiments=["decoders"]).tables["decoders"]
    rows = table.query("condition == 'probe' and site == 'resid_post' and measure == 'share_on_top'")
    print("ten images per class, share with the class on top, residual stream")
    print(rows.pivot(index="block", columns="tokens", values="value").round(3).to_string(), flush=True)


def report(
    model: str, photos: Path, test: classlens.Dataset, store: Path, work: Path, prefix: str, options: dict[str, Any]
) -> None:
    """Figures and summaries: decoders by block, and token removal by each of them."""
    OUT.mkdir(exist_ok=True)
    analysis = classlens.analyze(store, experiments=["decoders"])
    write_analysis(analysis, work / "analysis", version=classlens.__version__)
    figures(work / "analysis", formats=["png"])
    evaluation = classlens.evaluate(
        model,
        drawn(test, REMOVAL_PHOTOS[model]),
        work / "evaluation",
        methods=[*METHODS, *(f"stored_rank:condition={name}" for name in DECODERS)],
        metrics=["removal"],
        steps=7,
        permutations=3,
        ranks=store,
        batch_size=32,
        workers=0,
        report=print_progress,
        **options,
    )
    write_evaluation(evaluation, work / "evaluation" / "results", version=classlens.__version__)
    for name, folder in (("decoders", "analysis"), ("removal", "evaluation/results")):
        text = (work / folder / "summary.md").read_text(encoding="utf-8")
        (OUT / f"{prefix}{name}.md").write_text(text.replace(str(photos), "PHOTOS"), encoding="utf-8")
    copy_figures(work / "analysis" / "figures", OUT, prefix)
    copy_figures(work / "evaluation" / "results", OUT, prefix)


def main(photos: Path, work: Path, models: list[str]) -> None:
    train = classlens.open_dataset(f"folder:{photos / 'train'}", per_class=100, seed=0)
    test = classlens.open_dataset(f"folder:{photos / 'test'}")
    for model in models:
        options = model_options(model, photos)
        prefix = "" if model == "builtin:photos" else f"{model}_"
        folder = work / model.replace(":", "_")
        folder.mkdir(parents=True, exist_ok=True)
        train_lenses(model, train, folder, options)
        store = train_probes(model, train, test, folder, options)
        train_few(model, train, test, folder, options)
        report(model, photos, test, store, folder, prefix, options)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("give the folder of the photos")
    if len(sys.argv) > 2:
        main(Path(sys.argv[1]), Path(sys.argv[2]), list(REMOVAL_PHOTOS))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(sys.argv[1]), Path(folder), list(REMOVAL_PHOTOS))
