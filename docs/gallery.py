"""Makes the pictures of the front page anew: ``python docs/gallery.py``. Needs Chromium and scikit-image.

Figures and pages of classlens about three photos of scikit-image that are free of copyright (CC0), by the built-in
model: each page is opened in a browser, and a part of it is saved as a small WebP file in ``docs/gallery``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from skimage import data
from typer.testing import CliRunner

from classlens.cli import app

OUT = Path(__file__).with_name("gallery")
SIZE = (480, 300)
PHOTOS: dict[str, Any] = {"chelsea": data.chelsea, "rocket": data.rocket, "coffee": data.coffee}


def run(*words: str | Path) -> None:
    """Run a command of classlens; raises RuntimeError where it fails."""
    result = CliRunner().invoke(app, list(map(str, words)))
    if result.exit_code:
        raise RuntimeError(f"classlens {words[0]}: {result.output}")


def write_photos(folder: Path) -> None:
    """The photos, gray copies, and folders of crops in color and in gray."""
    random = np.random.default_rng(0)
    for kind in ("color", "gray"):
        (folder / kind).mkdir()
    for name, read in PHOTOS.items():
        photo = Image.fromarray(read())
        photo.save(folder / f"{name}.png")
        photo.convert("L").convert("RGB").save(folder / f"{name}-gray.png")
        for number in range(8):
            side = int(random.uniform(0.7, 1) * min(photo.size))
            left, top = (int(random.integers(0, length - side + 1)) for length in photo.size)
            crop = photo.crop((left, top, left + side, top + side)).resize((224, 224))
            crop.save(folder / f"color/{name}-{number}.png")
            crop.convert("L").convert("RGB").save(folder / f"gray/{name}-{number}.png")


def write_results() -> None:
    """Pages and pictures in the current folder, so that paths on them are short."""
    run("inspect", "chelsea.png", "--out", "report")
    run("explain", "rocket.png", "--method", "log_odds,chefer", "--out", "maps")
    run("sweep", "chelsea-gray.png", "chelsea.png", "--out", "sweep")
    for kind in ("color", "gray"):
        data_set = ("--data", f"folder:{kind}", "--out", f"{kind}.zarr")
        run("measure", "--model", "builtin:photos", *data_set, "--attribution", "--units", "64")
    run("atlas", "color.zarr", "--out", "atlas")
    run("compare", "color.zarr", "gray.zarr", "--by", "name", "--out", "comparison")
    run("explore", "color.zarr", "--export", "site", "--export-images", "0-5", "--export-classes", "church")


@contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield chromium.new_page(viewport={"width": 1120, "height": 700}, color_scheme="light")
        chromium.close()


def save(name: str, picture: Image.Image) -> None:
    fitted = ImageOps.pad(picture.convert("RGB"), SIZE, Image.Resampling.LANCZOS, color="white")
    fitted.save(OUT / f"{name}.webp", quality=70, method=6)


def shoot(page: Any, name: str, file: str, *, at: str = "", block: int | None = None) -> None:
    """Save what a window shows of a page, from the element ``at`` on, at a block."""
    page.goto(Path(file).resolve().as_uri())
    page.wait_for_timeout(700)
    if block is not None:
        page.locator("input[type=range]").first.fill(str(block))
    if at:
        page.locator(at).first.evaluate("element => element.scrollIntoView()")
    page.wait_for_timeout(300)
    save(name, Image.open(BytesIO(page.screenshot())))


def main() -> None:
    OUT.mkdir(exist_ok=True)
    docs = OUT.parent
    home = os.getcwd()
    with tempfile.TemporaryDirectory() as scratch, browser() as page:
        os.chdir(scratch)
        write_photos(Path())
        write_results()
        shoot(page, "report", "report/report.html")
        shoot(page, "tokens", "report/report.html", at="h2:has-text('token')", block=5)
        (maps,) = Path("maps").glob("*methods.png")
        save("maps", Image.open(maps))
        shoot(page, "sweep", "sweep/report.html")
        shoot(page, "unit", "atlas/units/7.308.html")
        shoot(page, "comparison", "comparison/compare.html")
        (photos,) = Path("site").glob("s*/index.html")
        shoot(page, "explorer", str(photos))
        os.chdir(home)
    with Image.open(docs / "evaluate/photos_curves.png") as curves:
        save("evaluate", curves.crop((0, 0, curves.width, curves.height // 4)))
    save("trajectories", Image.open(docs / "trajectories/decision_classes.png"))
    print(sum(path.stat().st_size for path in OUT.glob("*.webp")), "bytes in", OUT)


if __name__ == "__main__":
    main()
