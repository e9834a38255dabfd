"""`classlens sweep` as it is typed: its folder holds what `Lens.sweep` gives, and a bad input costs one line."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image
from scipy.stats import spearmanr
from typer.testing import CliRunner, Result

import classlens
from classlens.cli import app
from classlens.core.sweep_metrics import SWEEP_METRICS
from classlens.forward.sweep_parts import SWEEP_PARTS
from classlens.models.corruptions import CORRUPTIONS
from classlens.text import visible
from tests.data.pictures import picture
from tests.refusals import complaints


def run(*args: str | Path) -> Result:
    """The small model, in double precision."""
    given = ["sweep", *map(str, args), "--model", "builtin:cifar10", "--dtype", "float64"]
    return CliRunner().invoke(app, given, env={"COLUMNS": "120"})


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(3):
        picture(number, (40, 30)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def lens() -> classlens.Lens:
    return classlens.load("builtin:cifar10", dtype="float64")


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time, and is tested where it belongs."""
    monkeypatch.setattr("classlens.render.figures.sweep.save_figures", lambda *_: [])


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    return record


def assert_values(record: dict[str, Any], expected: xr.Dataset) -> None:
    assert len(record["images"]) == expected.sizes["image"]
    for number, image in enumerate(record["images"]):
        for name in ("effect", "patched", "clean", "corrupt"):
            np.testing.assert_allclose(image[name], expected[name].values[number], rtol=0, atol=1e-9)
        assert image["target"]["index"] == int(expected.target[number])
        assert image["target"]["name"] == str(expected.target_name.values[number])


def test_a_pair(photos: list[Path], tmp_path: Path, lens: classlens.Lens) -> None:
    out = tmp_path / "new" / "out"
    result = run(photos[0], photos[1], "--out", out)
    assert result.exit_code == 0, result.output
    assert complaints(result.stderr) == []
    assert {path.name for path in out.iterdir()} == {"sweep.json", "sweep.csv", "report.html", "01-effects.png"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    record = record_of(out)
    expected = lens.sweep(photos[0], photos[1])
    assert_values(record, expected)
    assert {
        key: record[key]
        for key in ("over", "metric", "direction", "site", "approximate", "steps", "blocks", "classlens")
    } == {
        "over": "heads",
        "metric": "log_odds",
        "direction": "denoise",
        "site": None,
        "approximate": False,
        "steps": None,
        "blocks": [0, 1, 2, 3, 4, 5],
        "classlens": classlens.__version__,
    }
    assert record["model"]["name"] == "builtin:cifar10"
    assert record["model"]["dtype"] == "float64"
    (image,) = record["images"]
    assert (image["name"], image["corrupt_name"]) == (str(photos[0]), str(photos[1]))
    assert image["parts"] == [0, 1, 2, 3]
    assert image["agreement"] is None
    for which, photo in (("clean", photos[0]), ("corrupt", photos[1])):
        logits = lens.trace(photo).model_logits[0]
        guess = image["predictions"][which]
        assert guess["index"] == int(logits.values.argmax())
        assert guess["probability"] == pytest.approx(float(np.exp(logits[guess["index"]]) / np.exp(logits).sum()))
    # The largest ones, by sorting all of them here.
    effects = expected.effect[0].to_series()
    ordered = effects.reindex(effects.abs().sort_values(ascending=False, kind="stable").index)
    assert [(part["block"], part["part"]) for part in image["largest"]] == list(ordered.index[:24])
    block, head = ordered.index[0]
    assert image["largest"][0]["name"] == f"head {block}.{head}"
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"0.png (clean): log odds {image['clean']:.3g}".replace("-", "−"))
    assert lines[-1] == f"Report: {out / 'report.html'}"
    shown = [line for line in lines if line.startswith("│ head ")]
    assert len(shown) == 10
    for line, (index, effect) in zip(shown, ordered.items(), strict=False):
        part, percent, patched = (cell.strip() for cell in line.strip("│").split("│"))
        assert part == "head {}.{}".format(*index)
        assert float(percent.rstrip("%").replace("−", "-")) == pytest.approx(100 * effect, abs=0.501)
        assert float(patched.replace("−", "-")) == pytest.approx(float(expected.patched[0].loc[index]), rel=0.006)


@pytest.mark.usefixtures("without_figures")
def test_several_clean_images_with_one_corrupt_one(photos: list[Path], tmp_path: Path, lens: classlens.Lens) -> None:
    options = ("--over", "tokens", "--site", "resid_post", "--blocks", "1,4", "--direction", "noise", "--class", "cat")
    result = run(*photos, *options, "--batch-size", "50", "--json", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert complaints(result.stderr) == []
    printed, record = json.loads(result.stdout), record_of(tmp_path / "out")
    assert printed == {"out": str(tmp_path / "out"), **record}
    expected = lens.sweep(
        photos[:2], photos[2], "tokens", site="resid_post", blocks=[1, 4], direction="noise", target="cat"
    )
    assert_values(record, expected)
    assert record["images"][0]["target"]["chosen"] == "given"
    with (tmp_path / "out" / "sweep.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 65
    for row in rows:
        image = [str(photo) for photo in photos].index(row["image"])
        found = expected.isel(image=image).sel(block=int(row["block"]), token=int(row["token"]))
        assert row["corrupt_image"] == str(photos[2])
        assert (int(row["row"]), int(row["column"])) == (int(found.row), int(found.column))
        for name in ("effect", "patched", "clean", "corrupt"):
            assert float(row[name]) == pytest.approx(float(found[name]), abs=1e-9)


@pytest.mark.usefixtures("without_figures")
def test_a_corruption_and_a_rival(photos: list[Path], tmp_path: Path, lens: classlens.Lens) -> None:
    args = ("--corruption", "noise", "--amount", "0.5", "--seed", "4", "--over", "sublayers", "--against", "dog")
    assert run(*photos[:2], *args, "--class", "3", "--out", tmp_path / "out").exit_code == 0
    record = record_of(tmp_path / "out")
    made = classlens.Corruption("noise", 0.5, seed=4)
    against = {"metric": "logit_difference", "target": "cat", "against": "dog"}
    assert_values(record, lens.sweep(photos[:2], made, "sublayers", **against))  # type: ignore[arg-type]
    image = record["images"][1]
    assert image["corrupt_name"] == "noise 0.5"
    assert image["corruption"] == {"kind": "noise", "amount": 0.5, "seed": 4}
    assert image["against"] == {"index": 5, "name": "dog", "chosen": "given"}
    logits = lens.trace(made(torch.from_numpy(pixels(lens, photos[1])))).model_logits[0]
    assert image["predictions"]["corrupt"]["logit"] == pytest.approx(float(logits.max()))


def pixels(lens: classlens.Lens, photo: Path) -> Any:
    with Image.open(photo) as opened:
        return lens.preprocessing(opened.convert("RGB"), "photo")[None].numpy()


@pytest.mark.usefixtures("without_figures")
def test_pairs_and_units(photos: list[Path], tmp_path: Path, lens: classlens.Lens) -> None:
    a, b, c = photos
    args = ("--pairs", "--over", "units", "--blocks", "5", "--metric", "probability", "--out", tmp_path / "out")
    assert run(a, b, a, c, *args).exit_code == 0
    record = record_of(tmp_path / "out")
    assert_values(record, lens.sweep([a, a], [b, c], "units", blocks=5, metric="probability"))
    assert [image["name"] for image in record["images"]] == [str(a), f"{a} (2)"]
    assert [image["corrupt_label"] for image in record["images"]] == ["1.png", "2.png"]
    assert len(record["images"][0]["largest"]) == 30
    assert run(a, "--corruption", "zero", "--out", tmp_path / "out").exit_code == 0, "an earlier result is replaced"
    (tmp_path / "out" / "mine.txt").write_text("mine")
    again = run(a, b, "--out", tmp_path / "out")
    assert again.exit_code == 2
    assert "'mine.txt'" in again.stderr


@pytest.mark.usefixtures("without_figures")
def test_estimates_and_their_agreement(photos: list[Path], tmp_path: Path, lens: classlens.Lens) -> None:
    args: tuple[str | Path, ...] = (*photos[:2], photos[2], "--approximate", "--steps", "3", "--direction", "noise")
    result = run(*args, "--agreement", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert complaints(result.stderr) == []
    record = record_of(tmp_path / "out")
    exact, estimate = (
        lens.sweep(photos[:2], photos[2], direction="noise", approximate=steps > 0, steps=steps or 1)
        for steps in (0, 3)
    )
    assert (record["approximate"], record["steps"]) == (True, 3)
    assert_values(record, estimate)
    assert abs(exact.effect - estimate.effect).max() > 0.01, "an exact sweep gives other numbers"
    agreement = classlens.sweep_agreement(exact, estimate).values
    found = [image["agreement"]["rank_correlation"] for image in record["images"]]
    np.testing.assert_allclose(found, agreement, rtol=0, atol=1e-9)
    for values, number in zip(found, range(2), strict=True):
        flat = (each.patched[number].values.ravel() for each in (exact, estimate))
        assert values == pytest.approx(spearmanr(*flat).statistic, abs=1e-9)
    for part in record["images"][0]["largest"]:
        verb = "takes away about " if part["effect"] >= 0 else "adds about "
        assert part["words"].startswith(f"Head {part['block']}.{part['part']} {verb}")
    printed = " ".join(result.stdout.split())
    assert printed.count("Largest effects of heads on the log odds of ") == 2
    assert printed.count(": estimate (attribution patching, 3 steps)") == 2
    assert "│ estimated effect │ estimated log odds │".replace("│", "┃") in printed
    shown = re.findall(r"Agreement with the exact sweep: Spearman's rank correlation (\S+) over 24 heads\.", printed)
    assert [float(text.replace("−", "-")) for text in shown] == pytest.approx(agreement, abs=0.0051)
    with (tmp_path / "out" / "sweep.csv").open(newline="", encoding="utf-8") as file:
        assert {row["method"] for row in csv.DictReader(file)} == {"estimate (attribution patching, 3 steps)"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("Agreement with the exact sweep: ") == 2


@pytest.mark.usefixtures("without_figures")
def test_an_estimate_alone(photos: list[Path], tmp_path: Path, lens: classlens.Lens) -> None:
    args = ("--corruption", "blur", "--over", "units", "--blocks", "0,5", "--approximate", "--json")
    result = run(photos[0], *args, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    blur = classlens.Corruption("blur")
    assert_values(record, lens.sweep(photos[0], blur, "units", blocks=[0, 5], approximate=True))
    assert (record["steps"], record["images"][0]["agreement"]) == (1, None)


@pytest.mark.usefixtures("without_figures")
def test_agreement_of_equal_values_is_not_defined(photos: list[Path], tmp_path: Path) -> None:
    args = ("--blocks", "0", "--approximate", "--agreement", "--json", "--out", tmp_path / "out")
    result = run(photos[0], photos[0], *args)
    assert result.exit_code == 0, result.output
    (image,) = json.loads(result.stdout)["images"]
    assert image["agreement"] == {"rank_correlation": None}
    assert image["effect"] == [[None] * 4]


@pytest.mark.usefixtures("without_figures")
def test_equal_images_have_no_effect_to_share_out(photos: list[Path], tmp_path: Path) -> None:
    result = run(photos[0], photos[0], "--blocks", "0", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    (image,) = record_of(tmp_path / "out")["images"]
    assert image["effect"] == [[None] * 4]
    assert image["largest"] == []
    unbroken = " ".join(result.stdout.split())
    assert "there is no difference to share out, so effects are not defined. Report:" in unbroken
    with (tmp_path / "out" / "sweep.csv").open(newline="", encoding="utf-8") as file:
        assert [row["effect"] for row in csv.DictReader(file)] == [""] * 4


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    "name", ["[red].png", ":cat:.png", "=1+2.png", "日本 ä.png", "<img src=x onerror=alert(1)>.png"]
)
def test_odd_names_of_files_and_classes(name: str, photos: list[Path], tmp_path: Path) -> None:
    odd = tmp_path / name
    odd.write_bytes(photos[0].read_bytes())
    classes = [f"</script>[bold]class {number}[/bold]\x1b[31m\u202e" for number in range(10)]
    (tmp_path / "names.json").write_text(json.dumps(classes))
    result = run(odd, odd, photos[1], "--classes", tmp_path / "names.json", "--blocks", "5", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    images = record_of(tmp_path / "out")["images"]
    assert [image["name"] for image in images] == [str(odd), f"{odd} (2)"]
    assert images[0]["target"]["name"] in classes
    assert result.stdout.startswith(f"{name} (clean): ")
    assert visible(images[0]["target"]["name"]) in "".join(result.stdout.split("\n")[0])
    assert "\x1b" not in result.stdout
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "\u202e" not in page


def test_classes_that_are_labels(photos: list[Path], tmp_path: Path) -> None:
    result = run(*photos[:2], "--multi-label", "--class", "cat", "--blocks", "3", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    record = record_of(tmp_path / "out")
    assert record["model"]["problem_type"] == "multi_label_classification"
    guess = record["images"][0]["predictions"]["clean"]
    assert guess["probability"] == pytest.approx(1 / (1 + math.exp(-guess["logit"])))


@pytest.mark.usefixtures("without_figures")
def test_an_output_that_is_a_number(photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import timm\ndef make():\n    return timm.create_model('test_vit', num_classes=1)"
    )
    args = ["sweep", *map(str, photos[:2]), "--model", f"{tmp_path / 'mine.py'}:make", "--blocks", "5"]
    result = CliRunner().invoke(app, [*args, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    record = record_of(tmp_path / "out")
    assert record["metric"] == "logit"
    (image,) = record["images"]
    assert image["predictions"]["clean"] == {
        "index": 0,
        "name": "class 0",
        "logit": image["clean"],
        "probability": None,
    }


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("0.png",), "image '0.png' was given alone: give a corrupt image after it, or --corruption"),
        (("0.png", "gone.png"), "image 'gone.png' does not exist"),
        (("gone.png", "0.png"), "image 'gone.png' does not exist"),
        (("0.png", "."), "the corrupt image '.' is a folder"),
        (("0.png", "1.png", "2.png", "--pairs"), "--pairs was given with 3 images"),
        (("0.png", "--pairs", "--corruption", "blur"), "--pairs and --corruption were both given"),
        (("0.png", "--corruption", "blurr"), "corruption 'blurr' is not known; did you mean 'blur'?"),
        (("0.png", "--corruption", "zero", "--amount", "1"), "corruption 'zero' has no amount"),
        (("0.png", "--corruption", "blur", "--amount", "-1"), "amount -1.0"),
        (("0.png", "1.png", "--amount", "1"), "--amount was given without --corruption"),
        (("0.png", "1.png", "--over", "head"), "over 'head' is not known; did you mean 'heads'?"),
        (("0.png", "1.png", "--metric", "odds"), "metric 'odds' is not known"),
        (("0.png", "1.png", "--metric", "logit_difference"), "without against="),
        (("0.png", "1.png", "--metric", "logit", "--against", "dog"), "with against="),
        (("0.png", "1.png", "--class", "catt"), "did you mean 'cat'"),
        (("0.png", "1.png", "--against", "dgo"), "did you mean 'dog'"),
        (("0.png", "1.png", "--class", "dog", "--against", "dog"), "target and against are both 'dog'"),
        (("0.png", "1.png", "--direction", "both"), "direction 'both' is not known"),
        (("0.png", "1.png", "--site", "resid_pre"), "a site goes with over='tokens'"),
        (("0.png", "1.png", "--over", "tokens", "--site", "resid_mid"), "site 'resid_mid' is not known"),
        (("0.png", "1.png", "--blocks", "1,x"), "--blocks '1,x' is not understood"),
        (("0.png", "1.png", "--blocks", "9"), "block 9 does not exist"),
        (("0.png", "1.png", "--batch-size", "0"), "--batch-size"),
        (("0.png", "bad.png"), "bad.png"),
        (("0.png", "1.png", "--steps", "1"), "--steps was given without --approximate"),
        (("0.png", "1.png", "--agreement"), "--agreement was given without --approximate"),
        (("0.png", "1.png", "--approximate", "--steps", "0"), "--steps"),
        (
            ("0.png", "1.png", "--approximate", "--metric", "rank"),
            "--metric rank was given with --approximate, but has no gradient: give one of log_odds",
        ),
    ],
)
@pytest.mark.wrong_types
def test_mistakes(
    photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], says: str
) -> None:
    for number, photo in enumerate(photos):
        (tmp_path / f"{number}.png").write_bytes(photo.read_bytes())
    (tmp_path / "bad.png").write_bytes(b"no image")
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    result = run(*args, "--out", "out")
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert result.stdout == ""
    assert sorted(tmp_path.iterdir()) == before, "nothing was written"


def test_help_names_what_registries_hold() -> None:
    """The registries import torch, which help texts do without."""
    words = set(re.findall(r"\w+", CliRunner().invoke(app, ["sweep", "--help"], env={"COLUMNS": "200"}).output))
    assert {*SWEEP_METRICS, *SWEEP_PARTS, *CORRUPTIONS} <= words
