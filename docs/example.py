"""Writes the numbers and figures of the worked example: ``python docs/example.py cifar10:FOLDER [WORK]``.

Measures the whole test set with the built-in model (about three minutes on two cores), analyzes the store, and copies
the summary and the figures, reduced to 64 colors, to ``docs/example``. ``WORK`` keeps store and analysis, so that a run
continues where it stopped.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

import classlens
from classlens.render.folders.analysis import write_analysis

HERE = Path(__file__).resolve().parent
CONDITIONS = ("clean", "random_init", "self_only", "no_cls")
FIGURES = (
    "evolution_on_top",
    "evolution",
    "change_rate",
    "attention_edits",
    "building",
    "composition",
    "class_value_agreement",
    "key_value_agreement",
    "agreement_by_class",
    "agreement_accuracy",
    "compositionality",
)


def main(data: str, work: Path) -> None:
    classlens.measure("builtin:cifar10", data, work / "builtin.zarr", conditions=CONDITIONS, memories=True)
    write_analysis(classlens.analyze(work / "builtin.zarr"), work / "analysis", version=classlens.__version__)
    classlens.figures(work / "analysis", formats="png")
    out = HERE / "example"
    out.mkdir(exist_ok=True)
    summary = (work / "analysis" / "summary.md").read_text(encoding="utf-8")
    # The folder of the images is left out.
    shown = summary.replace(data, data.partition(":")[0]).replace("# Analysis", "# Numbers of the example", 1)
    (out / "summary.md").write_text(shown, encoding="utf-8")
    for name in FIGURES:
        with Image.open(work / "analysis" / "figures" / f"{name}.png") as figure:
            figure.convert("RGB").quantize(64).save(out / f"{name}.png", optimize=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("give the data, such as cifar10:/data/cifar-10")
    if len(sys.argv) > 2:
        main(sys.argv[1], Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(sys.argv[1], Path(folder))
