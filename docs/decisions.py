"""Numbers of the pages on trajectories, outliers and reliability: ``python docs/decisions.py PHOTOS [WORK]``.

Measures the test photos by ``builtin:photos`` and its teacher, and one half of them at 48 pixels by ``builtin:photos``.
Prints the tables that the pages quote, and writes figures to ``docs/trajectories``. ``PHOTOS`` is the folder that
``docs/example.py`` takes; ``WORK`` keeps the stores, so that a stopped run continues. The numbers of CIFAR-10 come from
the commands on the page on reliability.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from example import TEACHER, model_options, open_photos
from faithfulness import copy_figures, print_progress
from PIL import Image

import classlens
from classlens.render.folders.analysis import write_analysis

SMALL = "builtin:photos"
OUT = Path(__file__).resolve().parent / "trajectories"
CONDITIONS = {"photos": ("clean", "random_init", "outliers_removed"), "teacher": ("clean", "outliers_removed")}
TRAJECTORIES = ("decision", "decision_classes", "saturation", "dynamics", "stability")
OUTLIERS = ("norms", "outliers", "outlier_classes")


def measure(model: str, data: classlens.Dataset, out: Path, photos: Path, conditions: tuple[str, ...]) -> Path:
    classlens.measure(
        model,
        data,
        out,
        conditions=conditions,
        sites=["resid_post"],
        batch_size=64,
        workers=0,
        skip_bad=True,
        report=print_progress,
        **model_options(model, photos),
    )
    return out


def halves(photos: Path, work: Path) -> dict[str, classlens.Dataset]:
    """Every second photo as it is, and the others with 48 pixels on the shorter side."""
    for number, file in enumerate(sorted((photos / "test").rglob("*.jpg"))):
        folder = work / ("small" if number % 2 else "whole") / file.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        if not number % 2:
            (folder / file.name).write_bytes(file.read_bytes())
            continue
        with Image.open(file) as photo:
            scale = 48 / min(photo.size)
            size = (round(photo.width * scale), round(photo.height * scale))
            photo.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(folder / file.name, quality=95)
    return {name: classlens.open_dataset(f"folder:{work / name}") for name in ("whole", "small")}


def draw(stores: list[Path], work: Path, *names: str) -> None:
    """Tables of experiments on the terminal, and those figures of them that the pages show."""
    result = classlens.analyze(stores, experiments=TRAJECTORIES + OUTLIERS)
    for name, table in result.tables.items():
        print(f"{name}\n{table.round(3).to_string()}")
    write_analysis(result, work, version=classlens.__version__)
    classlens.figures(work, formats="png")
    for file in (work / "figures").glob("*.png"):
        if file.stem not in names:
            file.unlink()
    copy_figures(work / "figures", OUT)


def main(photos: Path, work: Path) -> None:
    OUT.mkdir(exist_ok=True)
    data = open_photos(photos)
    models = {"photos": SMALL, "teacher": TEACHER}
    stores = {
        name: measure(model, data, work / f"{name}.zarr", photos, CONDITIONS[name]) for name, model in models.items()
    }
    draw([stores["photos"]], work / "analysis_photos", "decision_classes")
    draw(list(stores.values()), work / "analysis", "decision_margin")
    parts = {
        name: measure(SMALL, half, work / f"{name}.zarr", photos, ("clean",))
        for name, half in halves(photos, work / "halves").items()
    }
    for train, test in ((stores["photos"], None), (stores["teacher"], None), (parts["whole"], parts["small"])):
        print(f"reliability\n{classlens.reliability(train, test).scores.round(3).to_string()}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("give the folder of the photos")
    if len(sys.argv) > 2:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(sys.argv[1]), Path(folder))
