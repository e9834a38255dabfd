"""The pages "Extending classlens": each example is written to files, registered, and used as the page says."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import classlens
from classlens.cli import app
from classlens.errors import ClasslensError
from classlens.registry import Registry
from tests.test_docs import fenced_commands

DOCS = Path(__file__).parent.parent / "docs"
HOOKS: dict[str, Any] = runpy.run_path(str(DOCS / "hooks.py"))
FENCE = re.compile(r'```(\w+)(?: title="([\w.]+)")?\n(.*?)```', flags=re.DOTALL)


class Page(NamedTuple):
    """An example: files by name, code that registers rows, code that uses them and its output, and commands."""

    files: dict[str, str]
    rows: str
    use: str
    printed: str
    commands: list[list[str]]


def page_of(name: str) -> Page:
    text = (DOCS / "extending" / f"{name}.md").read_text(encoding="utf-8")
    fences = FENCE.findall(text)
    files = {title: code for language, title, code in fences if language == "python" and title}
    code = "".join(code for language, title, code in fences if language == "python" and not title)
    printed = "".join(code for language, _, code in fences if language == "text")
    start = code.index("\n", code.rindex(".register(")) + 1
    return Page(files, code[:start], code[start:], printed, list(fenced_commands(text)))


@pytest.fixture
def registries() -> Iterator[dict[str, Registry[Any]]]:
    """Every registry by the name of its table; records that a test adds are removed again."""
    known = {name: HOOKS["registry"](name) for name in HOOKS["REGISTRIES"]}
    names = {name: set(registry) for name, registry in known.items()}
    yield known
    for name, registry in known.items():
        for added in set(registry) - names[name]:
            registry.unregister(added)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder of an example: on the Python path, with a photo and two small data sets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = set(sys.modules)
    generator = np.random.default_rng(0)

    def write(path: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / path)

    write("cat.png")
    for number in range(3):
        write(f"photos/cat/{number}.png")
        write(f"photos/dog/{number}.png")
    (tmp_path / "classes.txt").write_text("cat\ndog\n", encoding="utf-8")
    birds = tmp_path / "birds-data"
    names = [f"00{species}.Bird/{number}" for species in (1, 2) for number in range(3)]
    for name in names:
        write(f"birds-data/images/{name}.jpg")
        annotators = np.zeros((32, 32), dtype=np.uint8)
        annotators[8:24, 8:24], annotators[12:20, 12:20] = 102, 255
        path = birds / f"segmentations/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(annotators).save(path)
    rows = {"images.txt": [f"{number} {name}.jpg" for number, name in enumerate(names)]}
    rows["train_test_split.txt"] = [f"{number} {int(number == 0)}" for number in range(len(names))]
    for file, lines in rows.items():
        (birds / file).write_text("\n".join(lines), encoding="utf-8")
    yield tmp_path
    for name in set(sys.modules) - modules:  # modules of the example, which other examples may name alike
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def example(
    folder: Path, registries: dict[str, Registry[Any]], capsys: pytest.CaptureFixture[str]
) -> Callable[[str], dict[str, Any]]:
    """Follows a page: writes its files, runs its commands and its code; returns the names that the code defines."""

    def follow(name: str) -> dict[str, Any]:
        page = page_of(name)
        for title, code in page.files.items():
            Path(title).write_text(code, encoding="utf-8")
        names: dict[str, Any] = {}
        exec(page.rows, names)
        for words in page.commands:
            result = CliRunner().invoke(app, words)
            assert result.exit_code == 0, f"classlens {shlex.join(words)}\n{result.output}"
        capsys.readouterr()
        exec(page.use, names)
        assert capsys.readouterr().out == page.printed
        return names

    return follow


def check_known(registry: Registry[Any], table: str, name: str) -> None:
    """Error messages and documentation tables know a record at once."""
    with pytest.raises(ClasslensError, match=f"did you mean '{name}'"):
        registry[name[:-1]]
    row = next(line for line in HOOKS["filled"](table).splitlines() if f"`{name}" in line or name in line)
    assert registry[name].about in row


def test_a_method(example: Callable[[str], Any], registries: dict[str, Registry[Any]], folder: Path) -> None:
    names = example("method")
    values = names["trace"].recording.activation("values", 2)[0, :, 1:]
    np.testing.assert_allclose(names["importance"][0, 2], values.abs().sum(dim=-1), rtol=1e-5)
    assert (folder / "maps" / "01-value_norm-order=1.png").is_file()
    check_known(registries["methods"], "methods", "value_norm")


def test_a_metric(example: Callable[[str], Any], registries: dict[str, Registry[Any]], folder: Path) -> None:
    names = example("metric")
    curves = names["result"].curves.query("method == 'random'")
    assert list(curves["x"].round(2)) == [round(0.1 * tenth, 2) for tenth in range(11)]
    assert "AOPC, logits" in (folder / "faithfulness/results/summary.md").read_text(encoding="utf-8")
    check_known(registries["metrics"], "metrics", "aopc")


def test_a_layout(example: Callable[[str], Any], registries: dict[str, Registry[Any]]) -> None:
    dataset = example("layout")["dataset"]
    assert dataset.names[:2] == ("images/001.Bird/1.jpg", "images/001.Bird/2.jpg")
    assert dataset.mask(0).sum() == 64
    assert dataset.ignored(0).sum() == 256 - 64
    check_known(registries["layouts"], "layouts", "birds")


def test_a_model_family(example: Callable[[str], Any], registries: dict[str, Registry[Any]], folder: Path) -> None:
    own = (DOCS / "own-models.md").read_text(encoding="utf-8")
    model, description, _ = re.findall(r"```python\n(.*?)```", own, flags=re.DOTALL)
    (folder / "mine.py").write_text(model + description, encoding="utf-8")
    names = example("family")
    assert names["lens"].view.library == "mine"
    assert classlens.load(names["lens"].view.module).view.library == "mine", "a module of the library"
    assert (folder / "report/report.html").is_file()
    with pytest.raises(ClasslensError, match=r"did you mean .*'mine:small'"):
        classlens.load("mine:smal")
    assert "`mine:small`, `mine:deep`" in HOOKS["filled"]("families")


def test_an_experiment(example: Callable[[str], Any], registries: dict[str, Registry[Any]], folder: Path) -> None:
    table = example("experiment")["table"]
    data = classlens.open_store("run.zarr")["clean"].to_dataset()
    agrees = data["top1"].sel(site="resid_post", block=2) == data["prediction"]
    image_tokens = agrees.isel(token=slice(1, None))
    row = table.query("tokens == 'image' and block == 2")
    assert row["value"].item() == pytest.approx(float(image_tokens.mean()))
    assert (folder / "analysis/figures/prediction_agreement.png").is_file()
    check_known(registries["experiments"], "experiments", "prediction_agreement")


def test_an_edit_and_a_condition(example: Callable[[str], Any], registries: dict[str, Registry[Any]]) -> None:
    names = example("edit-or-condition")
    lens, pixels = names["lens"], names["pixels"]
    with lens.edit(classlens.CutAttention("cls", slice(1, 5), renormalize=True)):
        with lens.edit(classlens.CutAttention("image", slice(1, 5), renormalize=True)):
            expected = lens.facts(pixels, "resid_post", 0)["logit"]
    np.testing.assert_allclose(names["edited"]["logit"], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ClasslensError, match="has no registers"):
        with classlens.load("builtin:cifar10").edit(names["HideRegisters"]()):
            pass
    clean, hidden = (classlens.open_store("registers.zarr")[name].to_dataset() for name in ("clean", "no_registers"))
    assert not clean["logit"].equals(hidden["logit"])
    check_known(registries["edits"], "edits", "HideRegisters")
    check_known(registries["conditions"], "conditions", "no_registers")


def test_a_metric_and_a_corruption_of_sweeps(
    example: Callable[[str], Any], registries: dict[str, Registry[Any]], folder: Path
) -> None:
    names = example("sweep")
    sweep = names["sweep"]
    trace = names["lens"].trace(str(folder / "cat.png"))
    logits = np.sort(trace.recording.logits[0].numpy())
    assert sweep.clean.item() == pytest.approx(logits[-1] - logits[-2], abs=1e-4)
    pixels = torch.arange(2 * 8 * 12, dtype=torch.float32).reshape(1, 2, 8, 12)
    shuffled = registries["corruptions"]["shuffled"].make(pixels, 4.0, 0)
    patches = [[image[0, :, y : y + 4, x : x + 4] for y in (0, 4) for x in (0, 4, 8)] for image in (pixels, shuffled)]
    order = [next(place for place, own in enumerate(patches[0]) if torch.equal(own, patch)) for patch in patches[1]]
    assert sorted(order) == list(range(6))
    assert order != list(range(6))
    check_known(registries["sweep-metrics"], "sweep-metrics", "margin")
    check_known(registries["corruptions"], "corruptions", "shuffled")


def test_help_texts_list_the_rows_of_the_pages() -> None:
    """In a process of its own, as help texts are made when the command line is imported."""
    pages = ("method", "metric", "layout", "family", "experiment", "edit-or-condition")
    rows = "\n".join(page_of(name).rows for name in pages)
    listed = {
        "explain": ["value_norm"],
        "evaluate": ["value_norm", "insertion"],
        "measure": ["pets", "no_registers"],
        "analyze": ["prediction_agreement"],
        "check": ["mine"],
    }
    program = f"""{rows}
from classlens.cli import app
for command in {list(listed)}:
    app([command, "--help"], standalone_mode=False)
    print("====")
"""
    environment = {**os.environ, "COLUMNS": "1000", "TERM": "dumb"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    for (command, names), text in zip(listed.items(), done.stdout.split("===="), strict=False):
        assert set(names) <= set(re.findall(r"[\w-]+", text)), command


@pytest.mark.slow
def test_a_script_serves_as_the_command_line(folder: Path) -> None:
    (folder / "value_norm.py").write_text(page_of("method").files["value_norm.py"], encoding="utf-8")
    (script,) = page_of("index").files
    (folder / script).write_text(page_of("index").files[script], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script, "explain", "cat.png", "--method", "value_norm"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "classlens-explain" / "01-value_norm.png").is_file()
