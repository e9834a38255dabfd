"""`classlens explain` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import classlens
from classlens.cli import app
from classlens.explain.registry import METHODS
from tests.data.pictures import picture


def run(*args: str | Path) -> Result:
    """The small model, unless another is given."""
    model = [] if "--model" in args else ["--model", "builtin:cifar10"]
    return CliRunner().invoke(app, ["explain", *map(str, args), *model], env={"COLUMNS": "120"})


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(2):
        picture(number, (40, 30)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def test_all_methods_of_two_photos(photos: list[Path], tmp_path: Path) -> None:
    result = run(*photos, "--class", "ship", "--method", "all", "--animate", "--contour", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert f"{photos[1]}: ship: {tmp_path / 'out' / '02-methods.png'}" in result.stdout
    by_block = {name for name, method in METHODS.items() if "block" in method.dims}
    names = {f"{number}-{name}.png" for number in ("01", "02") for name in (*METHODS, "methods")}
    names |= {f"{number}-{name}.webp" for number in ("01", "02") for name in by_block} | {"explain.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    record = json.loads((tmp_path / "out" / "explain.json").read_text())
    trace = classlens.load("builtin:cifar10").trace(photos)
    for image, result in enumerate(record["images"]):
        assert result["target"] == "ship"
        for name in METHODS:
            # Rounded to six digits.
            np.testing.assert_allclose(result["maps"][name], trace.map("ship", method=name)[image], rtol=1e-5)
        assert result["target_index"] == 8
        assert result["options"]["class_gradient"] == {"loss": "cross_entropy"}
        assert result["options"]["random"] == {"seed": 0}
    assert record["checkpoint"] is None
    assert record["transform"].startswith("Compose(")
    assert record["dtype"] == "float32"
    with Image.open(tmp_path / "out" / "01-legrad.webp") as animation:
        assert getattr(animation, "n_frames", 1) == 6
        assert animation.size == (480, 360 + 46), "small pictures enlarged by a whole number, and the scale below"


def test_one_class_against_another(photos: list[Path], tmp_path: Path) -> None:
    result = run(photos[0], "--class", "cat", "--against", "dog", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    map_ = json.loads((tmp_path / "out" / "explain.json").read_text())["images"][0]["maps"]["log_odds"]
    trace = classlens.load("builtin:cifar10").trace(photos[:1])
    np.testing.assert_allclose(map_, trace.map("cat", against="dog")[0], rtol=1e-5)
    pixels = np.asarray(Image.open(tmp_path / "out" / "01-log_odds.png")).astype(int)
    bluer = pixels[..., 2] - pixels[..., 0]
    assert np.min(map_) < 0 < np.max(map_)
    assert bluer.min() < -20, "orange for the one"
    assert bluer.max() > 20, "blue for the other"
    assert len(result.stderr.splitlines()) == 1, "how the model was loaded, and nothing else"
    again = run(photos[0], "--method", "chefer,rollout", "--against", "dog", "--out", tmp_path / "out")
    assert "Note: method 'rollout' is the same for every class; --against does not change it.\n" in again.stderr
    assert again.exit_code == 0, "an earlier result is replaced"
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert run(photos[0], "--out", tmp_path / "out").exit_code == 2


def test_methods_with_options_of_their_own(photos: list[Path], tmp_path: Path) -> None:
    methods = "class_gradient,class_gradient:loss=logit,grad_cam:block=2,legrad:pool=head,class_gradient:against=dog"
    args = ("--class", "cat", "--method", methods, "--animate", "--out", tmp_path / "out")
    assert run(photos[0], *args).exit_code == 0
    assert run(photos[0], *args).exit_code == 0, "an earlier result is replaced"
    record = json.loads((tmp_path / "out" / "explain.json").read_text())["images"][0]
    trace = classlens.load("builtin:cifar10").trace(photos[:1])
    for text, name, options in (
        ("class_gradient", "class_gradient", {"loss": "cross_entropy"}),
        ("class_gradient:loss=logit", "class_gradient", {"loss": "logit"}),
        ("class_gradient:against=dog", "class_gradient", {"loss": "logit", "against": "dog"}),
        ("grad_cam:block=2", "grad_cam", {"block": 2}),
        ("legrad:pool=head", "legrad", {"pool": "head"}),
    ):
        assert record["options"][text] == options
        expected = trace.map("cat", method=name, **options)[0]
        np.testing.assert_allclose(record["maps"][text], expected, rtol=1e-5, atol=1e-12)
        assert (tmp_path / "out" / f"01-{text.replace(':', '-')}.png").exists()
    assert (tmp_path / "out" / "01-legrad-pool=head.webp").exists()


@pytest.mark.parametrize(("typed", "query"), [("cls", "cls"), ("3,5", (3, 5)), ("7", 7)])
def test_another_query_and_another_precision(
    photos: list[Path], tmp_path: Path, typed: str, query: str | int | tuple[int, int]
) -> None:
    args = ("--class", "cat", "--method", "class_gradient,rollout", "--query", typed, "--dtype", "float64")
    result = run(photos[0], *args, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert record["dtype"] == "float64"
    trace = classlens.load("builtin:cifar10", dtype="float64").trace(photos[:1])
    for method in ("class_gradient", "rollout"):
        expected = trace.map("cat", method=method, query=query)[0]
        np.testing.assert_allclose(record["images"][0]["maps"][method], expected, rtol=1e-5)
        assert record["images"][0]["options"][method]["query"] == (list(query) if isinstance(query, tuple) else query)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--method", "gradcam"), "did you mean 'grad_cam'"),
        (("--method", ""), "no method was given"),
        (("--method", "rollout", "--against", "dog"), "--against goes with class_gradient, chefer, grad_cam"),
        (("--against", "dgo"), "did you mean 'dog'"),
        (("--loss", "logit"), "--loss goes with class_gradient, not with log_odds"),
        (("--method", "class_gradient", "--loss", "hinge"), "loss 'hinge' is not known"),
        (("--class", "catt"), "did you mean 'cat'"),
        (("--class", "zzzz"), "give an index from 0 to 9, or a name such as 'airplane', 'automobile', 'bird'"),
        (("--query", "3,x"), "--query '3,x' is no token"),
        (("--query", "dist", "--method", "rollout"), "query 'dist' is no prefix token"),
        (("--query", "cls", "--method", "legrad"), "--query goes with class_gradient, attention, rollout, chefer, not"),
        (("--loss", "logit", "--method", "chefer,class_gradient:loss=logit"), "has a loss of its own"),
        (("--method", "class_gradient:loss=hinge"), "loss 'hinge' is not known"),
        (("--method", "chefer:loss=logit"), "method 'chefer' has no option 'loss'"),
        (("--dtype", "float31"), "float31"),
        (("--animate", "--format", "mp4"), "--format 'mp4' is not known: give webp or gif"),
        (("--format", "gif"), "--format gif goes with --animate"),
    ],
)
@pytest.mark.wrong_types
def test_mistakes(photos: list[Path], tmp_path: Path, args: tuple[str, ...], says: str) -> None:
    result = run(photos[0], *args, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert says in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_photo_that_is_not_there(tmp_path: Path) -> None:
    assert "does not exist" in run(tmp_path / "none.png", "--out", tmp_path / "out").stderr


def test_an_animation_as_gif(photos: list[Path], tmp_path: Path) -> None:
    result = run(photos[0], "--method", "class_rank", "--animate", "--format", "gif", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    names = {"01-class_rank.png", "01-class_rank.gif", "01-methods.png", "explain.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    with Image.open(tmp_path / "out" / "01-class_rank.gif") as animation:
        assert getattr(animation, "n_frames", 1) == 6
        assert animation.info["loop"] == 0, "over and over"
        durations = []
        for frame in range(6):
            animation.seek(frame)
            durations.append(animation.info["duration"])
        assert durations == [400, 400, 400, 400, 400, 1600], "the last one rests"
    again = run(photos[0], "--method", "class_rank", "--animate", "--format", "gif", "--out", tmp_path / "out")
    assert again.exit_code == 0, "an earlier result is replaced"


def test_the_photo_itself_is_shown(tmp_path: Path) -> None:
    picture(0, (451, 300)).save(tmp_path / "photo.png")
    result = run(tmp_path / "photo.png", "--method", "random", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "explain.json").read_text())["images"][0]
    assert record["resolution"] == "photo"
    # builtin:cifar10: the shorter side to 32, the other to 48, of which columns 8 to 39 remain.
    assert record["frame"] == pytest.approx([8 * 451 / 48, 0, 40 * 451 / 48, 300], abs=1e-3)
    pixels = np.asarray(Image.open(tmp_path / "out" / "01-random.png")).astype(int)
    assert pixels.shape == (300, 451, 3)
    colored = (np.ptp(pixels, axis=2) > 0).mean(axis=0)
    assert colored[:75].max() == colored[376:].max() == 0
    assert colored[75:376].min() > 0.9


def test_folders_several_classes_and_unreadable_files(photos: list[Path], tmp_path: Path) -> None:
    """Each image is explained for each class; an unreadable file stops the run, or is left out and said."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "deep/c.png")):
        (tmp_path / "in" / name).write_bytes(photos[number].read_bytes())
    (tmp_path / "in" / "b.png").write_bytes(b"no image")
    given = (tmp_path / "in", photos[0], "--class", "cat", "--class", "3", "--class", "ship", "--out", tmp_path / "out")
    result = run(*given)
    assert result.exit_code == 2
    assert "b.png" in result.stderr
    result = run(*given, "--skip-bad")
    assert result.exit_code == 0, result.output
    records = json.loads((tmp_path / "out" / "explain.json").read_text())["images"]
    names = [str(tmp_path / "in" / "a.png"), str(tmp_path / "in" / "deep" / "c.png"), str(photos[0])]
    assert [(image["name"], image["target"]) for image in records] == [
        (name, target) for name in names for target in ("cat", "ship")
    ]
    trace = classlens.load("builtin:cifar10").trace(photos[1])
    np.testing.assert_allclose(records[3]["maps"]["log_odds"], trace.map("ship", method="log_odds")[0], rtol=1e-5)
    assert (tmp_path / "out" / "06-methods.png").exists()
    assert f"Skipped {tmp_path / 'in' / 'b.png'}: image" in result.stdout


def test_nothing_to_explain(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert "none of the 1 images can be read" in run(tmp_path / "bad.png", "--skip-bad", "--out", tmp_path / "x").stderr
    (tmp_path / "empty").mkdir()
    assert "holds no images" in run(tmp_path / "empty", "--out", tmp_path / "x").stderr
    assert "does not exist" in run(tmp_path / "gone.png", "--out", tmp_path / "x").stderr


def test_inspect_takes_them_as_well(photos: list[Path], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(photos[0].read_bytes())
    (tmp_path / "in" / "b.png").write_bytes(b"no image")
    given = ["inspect", str(tmp_path / "in"), str(photos[1]), "--class", "cat", "--class", "ship", "--json"]
    given += ["--model", "builtin:cifar10"]
    out = str(tmp_path / "out")
    assert CliRunner().invoke(app, [*given, "--out", out]).exit_code == 2
    result = CliRunner().invoke(app, [*given, "--skip-bad", "--out", out])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert [image["target"]["name"] for image in record["images"]] == ["cat", "ship", "cat", "ship"]
    assert list(record["skipped"]) == [str(tmp_path / "in" / "b.png")]
    assert len({image["name"] for image in record["images"]}) == 4
    rows = json.loads((tmp_path / "out" / "inspect.json").read_text())["images"]
    ranks = classlens.load("builtin:cifar10").trace(photos[1]).rank("resid_post", "ship")
    assert rows[3]["tokens"]["resid_post"]["rank"] == ranks.values[0].tolist()


def test_maps_of_other_tools(photos: list[Path], tmp_path: Path) -> None:
    maps, tool, out = tmp_path / "maps", tmp_path / "tool.py", tmp_path / "out"
    maps.mkdir()
    values = np.arange(16.0).reshape(4, 4) - 8
    np.save(maps / f"{photos[0].stem}.npy", values)
    tool.write_text("def ramp(model, pixels, target):\n    return pixels.new_ones(len(pixels), 8, 8).cumsum(dim=2)\n")
    given = ("--method", f"{tool}:ramp,{tool}:ramp:sign=positive", "--maps", f"lrp:sign=absolute={maps}", "--out", out)
    folder = photos[0].parent
    refusal = run(folder, *given)
    assert refusal.exit_code == 2
    assert f"map '{maps / photos[1].stem}.npy' does not exist" in refusal.stderr
    assert not out.exists()
    result = run(folder, *given, "--skip-bad")
    assert result.exit_code == 0, result.output
    assert f"Skipped {photos[1]}: map" in result.stdout
    names = {"01-lrp-sign=absolute.png", "01-methods.png", "01-ramp.png", "01-ramp-sign=positive.png", "explain.json"}
    assert {path.name for path in out.iterdir()} == names
    (record,) = json.loads((out / "explain.json").read_text())["images"]
    assert record["maps"]["ramp"] == [[float(column) for column in range(1, 9)]] * 8
    assert np.array(record["maps"]["lrp:sign=absolute"]).shape == (8, 8)
    assert record["maps"]["lrp:sign=absolute"][0][0] == 8  # the corner, beyond the outermost center
    wrong = run(folder, "--method", f"{tool}:slope", "--out", tmp_path / "other")
    assert wrong.exit_code == 2
    assert "has no function 'slope'" in wrong.stderr
