"""Writes the numbers and figures of the worked example: ``python docs/example.py PHOTOS [WORK]``.

Measures and analyzes the test photos with the built-in model, as ``classlens paper`` does, and copies the summary and
the figures, reduced to 64 colors, to ``docs/example``. ``PHOTOS`` holds ``test/<class>/*.jpg``, ``masks/test``, the
trimaps of Oxford-IIIT Pet, and ``vit-s14/weights.safetensors``, the model from which the built-in one was distilled.
``WORK`` keeps stores and analysis, so that a run continues where it stopped.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import classlens
from classlens.analysis.paper import reproduce
from classlens.engine.progress import Progress
from classlens.render.folders.analysis import write_analysis

HERE = Path(__file__).resolve().parent
MASKS = "object=1 ignore=3"
TEACHER = "vit_small_patch14_dinov2"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FIGURES = (
    "evolution_on_top",
    "evolution",
    "change_rate",
    "attention_edits",
    "class_vs_context",
    "context_removal",
    "building",
    "composition",
    "class_value_agreement",
    "key_value_agreement",
    "agreement_by_class",
    "agreement_accuracy",
    "compositionality",
)


def model_options(model: str, photos: Path) -> dict[str, Any]:
    """Options of ``classlens.load`` for the model: the device, and weights and class names of the teacher."""
    weights = {"checkpoint": photos / "vit-s14" / "weights.safetensors", "class_names": photos / "classes.txt"}
    return {"device": DEVICE, **(weights if model == TEACHER else {})}


def open_photos(photos: Path) -> classlens.Dataset:
    """The 1,650 test photos with the masks of the breeds."""
    return classlens.open_dataset(f"folder:{photos / 'test'}", masks=photos / "masks" / "test", mask_values=MASKS)


def has_mask(photos: Path, name: str) -> bool:
    return (photos / "masks" / "test" / name).with_suffix(".png").exists()


def main(photos: Path, work: Path) -> None:
    data = f"folder:{photos / 'test'}"
    reproduction = reproduce(
        [data],
        ["builtin:photos", TEACHER],
        work / "stores",
        checkpoints={TEACHER: model_options(TEACHER, photos)["checkpoint"]},
        class_names={TEACHER: model_options(TEACHER, photos)["class_names"]},
        per_class=None,
        masks=[photos / "masks" / "test"],
        mask_values=MASKS,
        skip_bad=True,
        device=DEVICE,
        report=print_progress,
    )
    write_analysis(reproduction.analysis, work / "analysis", version=classlens.__version__)
    classlens.figures(work / "analysis", formats="png")
    out = HERE / "example"
    out.mkdir(exist_ok=True)
    summary = (work / "analysis" / "summary.md").read_text(encoding="utf-8")
    # The folder of the photos is left out.
    shown = summary.replace(data, "folder:PHOTOS/test").replace("# Analysis", "# Numbers of the example", 1)
    (out / "summary.md").write_text(shown, encoding="utf-8")
    for name in FIGURES:
        with Image.open(work / "analysis" / "figures" / f"{name}.png") as figure:
            figure.convert("RGB").quantize(64).save(out / f"{name}.png", optimize=True)


def print_progress(model: str, progress: Progress) -> None:
    print(f"{model}, {progress.doing}: {progress.done} of {progress.images} photos", file=sys.stderr, flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("give the folder of the photos")
    if len(sys.argv) > 2:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(sys.argv[1]), Path(folder))
