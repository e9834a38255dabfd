"""The command line: what `classlens inspect` writes and prints, and that a bad input costs one line, no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from typer.main import get_command
from typer.testing import CliRunner, Result

import classlens
from classlens.cli import app
from classlens.errors import ClasslensError
from classlens.models.builtin import MODELS
from tests.refusals import complaints
from tests.render.test_inspection_record import assert_form, assert_numbers
from tests.zoo import randomize

CAT = Path(skimage.__file__).with_name("data") / "chelsea.png"
COFFEE = CAT.with_name("coffee.png")
FIGURES = {"evolution", "tokens", "explanation", "attribution"}


def run(*args: str | Path) -> Result:
    """The small model, unless another is given."""
    model = [] if "--model" in args else ["--model", "builtin:cifar10"]
    return CliRunner().invoke(app, ["inspect", *map(str, args), *model])


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "inspect.json").read_text(encoding="utf-8"))
    return record


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with what it holds; folders end in a slash."""
    files = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        files[name if path.is_file() else f"{name}/"] = path.read_bytes() if path.is_file() else b""
    return files


def small_cat(height: int = 48) -> Image.Image:
    with Image.open(CAT) as image:
        return image.convert("RGB").resize((height * 3 // 2, height))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a photo of a cat beside it."""
    folder = tmp_path / "here"
    folder.mkdir()
    small_cat().save(tmp_path / "cat.png")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time, and is tested where it belongs."""
    monkeypatch.setattr("classlens.render.figures.inspection.save_figures", lambda *_: [])


def trained(num_classes: int = 4) -> Any:
    """Stands for a small architecture of timm that somebody trained: 160 × 160 pixels, 10 × 10 tokens, 6 blocks."""
    model: Any = timm.create_model("test_vit", num_classes=num_classes)
    randomize(model)
    return model


# A whole run


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("whole") / "some" / "report"
    result = run(CAT, COFFEE, "--out", out)
    assert result.exit_code == 0, result.stderr
    return out, result


def test_everything_is_in_the_folder(report: tuple[Path, Result]) -> None:
    out, _ = report
    figures = {f"{number}-{kind}.png" for number in ("01", "02") for kind in FIGURES}
    assert set(os.listdir(out)) == {"report.html", "inspect.json", *figures}
    assert os.listdir(out.parent) == ["report"]
    for name in figures:
        with Image.open(out / name) as image:
            image.load()
            assert image.format == "PNG"
            assert min(image.size) > 200
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "chelsea.png" in page
    assert "coffee.png" in page


def test_the_record_is_whole(report: tuple[Path, Result]) -> None:
    record = record_of(report[0])
    assert_form(record, in_file=True)
    model = record["model"]
    assert {key: model[key] for key in ("name", "blocks", "heads", "num_classes", "pooling", "prefix", "grid")} == {
        "name": "builtin:cifar10",
        "blocks": 6,
        "heads": 4,
        "num_classes": 10,
        "pooling": "cls",
        "prefix": ["cls"],
        "grid": [8, 8],
    }
    assert [Path(image["name"]).name for image in record["images"]] == ["chelsea.png", "coffee.png"]
    assert record["images"][0]["target"] == {"index": 3, "name": "cat", "chosen": "predicted"}


def test_its_numbers_are_those_of_the_module_alone(report: tuple[Path, Result]) -> None:
    # Pixels by hand: the shorter side to 32, the middle, CIFAR-10's mean and standard deviation.
    with Image.open(CAT) as image:
        middle = image.convert("RGB").resize((48, 32), Image.Resampling.BICUBIC).crop((8, 0, 40, 32))
    normalized = (np.asarray(middle) / 255 - [0.4914, 0.4822, 0.4465]) / [0.2470, 0.2435, 0.2616]
    pixels = torch.from_numpy(normalized).permute(2, 0, 1)[None]
    module = MODELS["builtin:cifar10"].trained().double()
    image = record_of(report[0])["images"][0]
    assert_numbers(image, module, pixels, pooled=(0,), prefix=("cls",))


def test_the_table_says_the_same(report: tuple[Path, Result]) -> None:
    out, result = report
    assert complaints(result.stderr) == []
    text = result.stdout
    # Where a line of predictions is broken depends on how long the path of the image is.
    unbroken = " ".join(text.split())
    for image in record_of(out)["images"]:
        for prediction in image["predictions"]:
            assert f"{prediction['name']} {100 * prediction['probability']:.1f}%" in unbroken
        assert f"How the class {image['target']['name']!r} is built" in text
    assert [text.count(f"│     {block} │") for block in (0, 5, 6)] == [2, 2, 0], "blocks count from 0"
    assert text.splitlines()[-1] == f"Report: {out / 'report.html'}"


# Options


@pytest.mark.usefixtures("without_figures")
def test_a_class_rather_than_another(here: Path) -> None:
    result = run("../cat.png", "--class", "cat", "--against", "dog")
    assert result.exit_code == 0
    (image,) = record_of(here / "classlens-report")["images"]
    assert image["against"] == {"index": 5, "name": "dog"}
    text = " ".join(result.stdout.split())
    assert "How the class 'cat' is built, rather than 'dog'" in text
    logits = classlens.load("builtin:cifar10").trace(here / "../cat.png").model_logits[0]
    difference = float(logits[3] - logits[5])
    assert f"the difference of the two logits, {difference:.2f}, is the sum" in text
    same = run("../cat.png", "--class", "cat", "--against", "3")
    assert same.exit_code == 2
    assert "--class and --against are both 'cat'" in same.stderr


@pytest.mark.usefixtures("without_figures")
def test_labels_with_a_probability_each(here: Path) -> None:
    assert run("../cat.png", "--multi-label").exit_code == 0
    record = record_of(here / "classlens-report")
    assert record["model"]["problem_type"] == "multi_label_classification"
    for guess in record["images"][0]["predictions"]:
        assert guess["probability"] == pytest.approx(1 / (1 + np.exp(-guess["logit"])))


@pytest.mark.usefixtures("without_figures")
def test_json_is_all_that_is_printed(here: Path) -> None:
    result = run("../cat.png", "--json", "--class", "Dog")
    assert result.exit_code == 0
    assert complaints(result.stderr) == []
    printed = json.loads(result.stdout)
    record = record_of(here / "classlens-report")
    assert printed["out"] == "classlens-report"
    assert printed["model"] == record["model"]
    (image,) = printed["images"]
    assert image["target"] == {"index": 5, "name": "dog", "chosen": "given"}
    for key in ("name", "predictions", "blocks", "largest"):
        assert image[key] == record["images"][0][key]


@pytest.mark.usefixtures("without_figures", "here")
def test_a_class_by_index_is_the_class_by_name() -> None:
    by_index = json.loads(run("../cat.png", "--json", "--class", "5").stdout)
    by_name = json.loads(run("../cat.png", "--json", "--class", "dog").stdout)
    assert by_index == by_name


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("kind", ["txt", "json"])
def test_class_names_from_a_file(kind: str, here: Path) -> None:
    names = [f"thing {index}" for index in range(10)]
    (here / f"names.{kind}").write_text(json.dumps(names) if kind == "json" else "\n".join(names))
    result = run("../cat.png", "--json", "--classes", f"names.{kind}", "--class", "thing 8")
    assert json.loads(result.stdout)["images"][0]["target"] == {"index": 8, "name": "thing 8", "chosen": "given"}


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_weights_of_the_users_own(kind: str, here: Path) -> None:
    model = trained(4)
    if kind == "safetensors":
        save_file(model.state_dict(), here / "mine.safetensors")
    else:
        torch.save({"epoch": 3, "state_dict": model.state_dict()}, here / "mine.pth")
    (here / "names.txt").write_text("ant\nbee\ncat\ndog\n")
    options = ["--model", "test_vit", "--checkpoint", f"mine.{kind}", "--classes", "names.txt", "--transform", "paper"]
    result = run("../cat.png", "--json", *options)
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert printed["model"]["num_classes"] == 4
    assert printed["model"]["grid"] == [10, 10]
    with Image.open("../cat.png") as image:
        pixels = np.asarray(image.resize((160, 160), Image.Resampling.BILINEAR)) / 127.5 - 1
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())[0]
    logits_by_name = {prediction["name"]: prediction["logit"] for prediction in printed["images"][0]["predictions"]}
    assert logits_by_name == {
        name: pytest.approx(float(logit), abs=1e-3)
        for name, logit in zip(("ant", "bee", "cat", "dog"), logits, strict=True)
    }


@pytest.mark.usefixtures("without_figures")
def test_pictures_of_all_kinds(here: Path) -> None:
    cat = small_cat()
    gray = np.asarray(cat.convert("L"))
    palette = cat.quantize(32)
    turned = Image.Exif()
    turned[0x0112] = 6  # turn a quarter clockwise to see it upright
    # Pairs of files that show the same picture.
    cat.save("01-rgb.png")
    cat.convert("RGBA").save("02-rgba.png")
    palette.save("03-palette.png")
    palette.convert("RGB").save("04-palette-as-rgb.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save("05-16-bit.png")
    Image.fromarray(gray).save("06-8-bit.png")
    cat.transpose(Image.Transpose.ROTATE_90).save("07-turned.png", exif=turned)
    cat.save("08-upright.png")
    cat.convert("CMYK").save("09-cmyk.jpg", quality=95)
    cat.save("10-rgb.jpg", quality=95)
    cat.convert("1").save("11-one-bit.png")
    names = sorted(os.listdir(here))
    result = run(*names)
    assert result.exit_code == 0, result.stderr
    record = record_of(here / "classlens-report")
    assert_form(record, in_file=True)
    images = record["images"]
    assert [image["name"] for image in images] == names, "more than one batch, in order"
    for first in range(0, 8, 2):
        pictured, twin = images[first], images[first + 1]
        np.testing.assert_allclose(
            [prediction["logit"] for prediction in pictured["predictions"]],
            [prediction["logit"] for prediction in twin["predictions"]],
            atol=1e-4,
        )
        assert pictured["blocks"] == twin["blocks"]
    assert images[8]["predictions"][0]["logit"] == pytest.approx(images[9]["predictions"][0]["logit"], abs=0.3)


@pytest.mark.usefixtures("without_figures", "here")
@pytest.mark.parametrize("name", ["[red].png", "[link=x].png", ":cat:.png", "mit Leerzeichen und ä.png", "日本.png"])
def test_odd_names_are_shown_as_they_are(name: str) -> None:
    small_cat().save(name)
    result = run(name)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{name}: ")
    assert record_of(Path("classlens-report"))["images"][0]["name"] == name
    missing = run(f"not{name}")
    assert missing.stderr.startswith(f"Error: image {'not' + name!r} does not exist")


@pytest.mark.usefixtures("here")
@pytest.mark.skipif(sys.platform != "linux", reason="file names are text there")
def test_a_name_that_is_no_text() -> None:
    """As in archives from before UTF-8; drawn, printed and written without a failure."""
    name = os.fsdecode(b"caf\xe9.png")
    small_cat().save("plain.png")
    os.rename("plain.png", name)
    result = run(name)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("caf\\udce9.png: ")
    assert record_of(Path("classlens-report"))["images"][0]["name"] == name


# The output folder


@pytest.mark.usefixtures("without_figures")
def test_an_earlier_report_is_replaced(here: Path) -> None:
    assert run("../cat.png", "--out", "report").exit_code == 0
    (here / "report" / "02-tokens.png").write_bytes(b"of an earlier run with two images")
    assert run("../cat.png", "--out", "report", "--class", "dog").exit_code == 0
    assert set(os.listdir("report")) == {"inspect.json", "report.html"}
    assert record_of(here / "report")["images"][0]["target"]["name"] == "dog"
    assert os.listdir(here) == ["report"]


def full_disk(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def broken(*_: Any) -> None:
    raise RuntimeError("a mistake of ours")


def refused(*_: Any) -> None:
    raise ClasslensError("figure 3 cannot be drawn; give another image")


@pytest.mark.parametrize(
    "when", ["classlens.render.figures.inspection.save_figures", "classlens.render.html.report.write_report"]
)
@pytest.mark.parametrize(
    ("event", "code", "said"),
    [
        (full_disk, 2, "Error: output folder 'report' cannot be written (No space left on device)"),
        (interrupted, 130, "Interrupted; nothing half-written is left."),
        (refused, 2, "Error: figure 3 cannot be drawn"),
        (broken, 1, ""),
    ],
)
def test_whatever_happens_while_writing_leaves_all_as_it_was(
    when: str,
    event: Callable[..., None],
    code: int,
    said: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (here / "report").mkdir()
    (here / "report" / "inspect.json").write_text("{}")
    (here / "report" / "report.html").write_text("an earlier page")
    before = contents(here)
    monkeypatch.setattr("classlens.render.figures.inspection.save_figures", lambda *_: [])
    monkeypatch.setattr(when, event)
    result = run("../cat.png", "--out", "report")
    assert result.exit_code == code
    assert "".join(complaints(result.stderr)).startswith(said)
    assert result.stdout == ""
    assert contents(here) == before
    result = run("../cat.png", "--out", "new")
    assert result.exit_code == code
    assert contents(here) == before


# Inputs that cannot be used

Prepare = Callable[[], list[str]]


def none(*args: str) -> Prepare:
    return lambda: list(args)


def with_file(name: str, content: bytes, *args: str) -> Prepare:
    def prepare() -> list[str]:
        Path(name).write_bytes(content)
        return list(args)

    return prepare


def truncated_jpeg() -> list[str]:
    small_cat(200).save("whole.jpg")
    data = Path("whole.jpg").read_bytes()
    Path("cut.jpg").write_bytes(data[: len(data) // 2])
    return ["cut.jpg"]


def one_pixel() -> list[str]:
    Image.new("RGB", (1, 1)).save("one.png")
    return ["one.png"]


def good_and_bad() -> list[str]:
    small_cat().save("good.png")
    Path("note.png").write_bytes(b"hello")
    return ["good.png"] * 9 + ["note.png"]


def not_finite() -> list[str]:
    model = trained()
    with torch.no_grad():
        model.blocks[2].norm1.weight[5] = float("nan")
    save_file(model.state_dict(), "nan.safetensors")
    return ["../cat.png", "--model", "test_vit", "--checkpoint", "nan.safetensors"]


def other_weights() -> list[str]:
    save_file(
        VisionTransformer(img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=3).state_dict(), "o.safetensors"
    )
    return ["../cat.png", "--model", "test_vit", "--checkpoint", "o.safetensors"]


def other_names() -> list[str]:
    save_file(trained(4).state_dict(), "mine.safetensors")
    Path("three.txt").write_text("ant\nbee\ncat\n")
    return ["../cat.png", "--model", "test_vit", "--checkpoint", "mine.safetensors", "--classes", "three.txt"]


def resnet() -> list[str]:
    save_file(timm.create_model("test_resnet").state_dict(), "r.safetensors")
    return ["../cat.png", "--model", "test_resnet", "--checkpoint", "r.safetensors"]


class Trap:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, ("marker",))


def trap() -> list[str]:
    torch.save({"state_dict": {"weight": Trap()}}, "trap.pth")
    return ["../cat.png", "--model", "test_vit", "--checkpoint", "trap.pth"]


def empty_folder() -> list[str]:
    Path("empty").mkdir()
    return ["empty"]


def folder_of_others() -> list[str]:
    Path("photos").mkdir()
    Path("photos/holiday.jpg").write_bytes(b"precious")
    return ["../cat.png", "--out", "photos"]


TEST_VIT = ("../cat.png", "--model", "test_vit", "--checkpoint")
BAD: dict[str, tuple[Prepare, list[str]]] = {
    "missing image": (none("nope.png"), ["'nope.png'", "does not exist"]),
    "missing image among others": (none("../cat.png", "nope.png"), ["'nope.png'"]),
    "a name too long": (none("x" * 300), ["does not exist"]),
    "truncated JPEG": (truncated_jpeg, ["'cut.jpg'", "truncated"]),
    "an image of one pixel": (one_pixel, ["'one.png'", "1×1", "8×8"]),
    "no image": (with_file("note.png", b"hello", "note.png"), ["'note.png'"]),
    "an empty image": (with_file("empty.png", b"", "empty.png"), ["'empty.png'", "empty"]),
    "a folder without images": (empty_folder, ["'empty'"]),
    "the last of many": (good_and_bad, ["'note.png'"]),
    "unknown class": (none("../cat.png", "--class", "catt"), ["'catt'", "did you mean 'cat'"]),
    "class out of range": (none("../cat.png", "--class", "10"), ["class 10", "0 to 9"]),
    "unknown model": (none("../cat.png", "--model", "vit_tinny_patch16_224"), ["'vit_tiny_patch16_224'"]),
    "unknown builtin": (none("../cat.png", "--model", "builtin:mnist"), ["'builtin:mnist'", "'builtin:cifar10'"]),
    "a model that is not read": (
        resnet,
        ["'test_resnet'", "not a plain Vision Transformer", "nearest"],
    ),
    "missing checkpoint": (none(*TEST_VIT, "nope.pth"), ["'nope.pth'", "is not a file"]),
    "text as a checkpoint": (with_file("c.pth", b"Not Found", *TEST_VIT, "c.pth"), ["'c.pth'", "cannot be read"]),
    "empty checkpoint": (with_file("c.safetensors", b"", *TEST_VIT, "c.safetensors"), ["'c.safetensors'"]),
    "checkpoint of another model": (other_weights, ["'o.safetensors'", "missing", "'blocks.1.norm1.weight'"]),
    "checkpoint that would run code": (trap, ["'trap.pth'", "weights_only=False"]),
    "checkpoint for the built-in model": (
        none("../cat.png", "--checkpoint", "x.pth"),
        ["'builtin:cifar10'", "comes with its weights"],
    ),
    "weights that are not finite": (not_finite, ["'blocks.2.norm1.weight'", "finite"]),
    "names that are too few": (other_names, ["3 class names", "4 classes"]),
    "no file of names": (none("../cat.png", "--classes", "nope.txt"), ["'nope.txt'"]),
    "a list that is none": (with_file("n.json", b"{]", "../cat.png", "--classes", "n.json"), ["'n.json'", "JSON"]),
    "unknown transform": (none("../cat.png", "--transform", "bicubic"), ["'bicubic'", '"paper"']),
    "unknown device": (none("../cat.png", "--device", "banana"), ["'banana'", "cpu"]),
    "out is a file": (with_file("report", b"precious", "../cat.png", "--out", "report"), ["'report'", "is a file"]),
    "out below a file": (
        with_file("f", b"precious", "../cat.png", "--out", "f/report"),
        ["'f/report'", "cannot be written"],
    ),
    "out holds other files": (folder_of_others, ["'photos'", "holds other files"]),
    "out is too long": (none("../cat.png", "--out", "x" * 300), ["cannot be written"]),
}


def test_the_output_is_looked_at_before_the_model(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model takes minutes to load and to run; that nothing can be written should be said at once."""

    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded first")

    monkeypatch.setattr("classlens.lens.load.load", loaded)
    (here / "notes").mkdir()
    (here / "notes" / "precious.txt").write_text("precious")
    result = run("../cat.png", "--out", "notes")
    assert result.exit_code == 2, result.output
    assert "'notes' holds other files" in result.stderr


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_input_costs_one_line_and_nothing_else(kind: str, here: Path) -> None:
    prepare, parts = BAD[kind]
    args = prepare()
    before = contents(here.parent)
    result = run(*args)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = complaints(result.stderr)
    assert line.startswith("Error: ")
    for part in parts:
        assert part in line
    assert contents(here.parent) == before, "nothing written, nothing left, nothing touched"


def test_nothing_given_shows_help() -> None:
    result = CliRunner().invoke(app, [])
    assert "inspect" in result.output
    assert CliRunner().invoke(app, ["inspect"]).exit_code == 2


# In processes of their own


def process(*args: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


HELP = """
import sys
from classlens.cli import app
try:
    app({args!r}, prog_name="classlens")
except SystemExit as stop:
    assert stop.code == 0, stop.code
assert not {{"torch", "timm", "matplotlib", "numpy"}} & set(sys.modules)
used = {{name.rpartition(".")[2] for name in sys.modules if name.startswith("classlens.cli.")}}
assert used - {{"app", "options", "images"}} <= {used!r}, used
"""


COMMAND_FILES = {path.stem for path in Path(classlens.__file__).with_name("cli").glob("[a-z]*.py")} - {
    "app",
    "options",
    "images",
}


def test_every_file_of_a_command_is_listed() -> None:
    assert {name.replace("_", "-") for name in COMMAND_FILES} == set(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--version"], [f"classlens {classlens.__version__}\n"]),
        (["--help"], ["inspect", "--version"]),
        (["inspect", "--help"], ["--model", "--checkpoint", "--classes", "--class", "--out", "--json", "IMAGE"]),
    ],
)
def test_help_and_version_come_at_once(args: list[str], parts: list[str]) -> None:
    used = COMMAND_FILES if args == ["--help"] else {args[0]} - {"--version"}
    done = process("-c", HELP.format(args=args, used=used), COLUMNS="120")
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    for part in parts:
        assert part in done.stdout.decode()


@pytest.fixture
def elsewhere(here: Path) -> Iterator[Path]:
    yield here
    assert not [name for name in os.listdir(here) if name.startswith(".")], "a temporary folder is left"


@pytest.mark.slow
def test_a_run_where_the_terminal_knows_ascii_alone(elsewhere: Path) -> None:
    done = process("-m", "classlens", "inspect", "../cat.png", "--out", "report", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1, "how the model was loaded"
    assert done.stdout.splitlines()[-1] == b"Report: report/report.html".replace(b"/", os.sep.encode())
    assert_form(record_of(elsewhere / "report"), in_file=True)
    assert len(os.listdir("report")) == 2 + len(FIGURES)


@pytest.mark.slow
def test_weights_that_are_not_here_cost_one_line(elsewhere: Path) -> None:
    name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    done = process("-m", "classlens", "inspect", "../cat.png", "--model", name, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: pretrained weights of model")
    for part in (name, f"https://huggingface.co/timm/{name}", "checkpoint=FILE"):
        assert part in lines[0]
    assert os.listdir(elsewhere) == []
