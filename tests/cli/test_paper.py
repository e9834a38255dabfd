"""`classlens paper` as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from classlens.cli import app
from tests.data.pictures import folder


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["paper", *map(str, args)], env={"COLUMNS": "200"})


@pytest.mark.slow
def test_the_paper_in_one_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice: one of two models has no weights here, then the other alone. Figures are drawn once for each."""
    monkeypatch.setattr("classlens.render.figures.style._DPI", 40)
    data = folder(tmp_path / "images", 4)
    args = (
        "--data",
        data,
        "--per-class",
        "1",
        "--out",
        tmp_path / "paper",
        "--permutations",
        "30",
        "--resamples",
        "20",
    )
    result = run(*args, "--models", "builtin:cifar10,paper:vit-b-16-refinement")
    assert result.exit_code == 2, result.output
    assert "1 of the models could not be measured, the others were: paper:vit-b-16-refinement: " in result.stderr
    page = (tmp_path / "paper" / "paper.html").read_text()
    assert "paper:vit-b-16-refinement: not measured: timm does not have the weights of model" in page
    assert "data:image/png;base64," in page
    assert run(*args, "--models", "builtin:cifar10").exit_code == 0
    assert (tmp_path / "paper" / "analysis" / "summary.md").is_file()
    assert sorted(path.name for path in (tmp_path / "paper").iterdir()) == ["analysis", "paper.html", "stores"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "is not a folder"),
        (("--checkpoint", "file.pt"), "--checkpoint 'file.pt' is no MODEL=FILE"),
        (("--ranks", "probes.zarr"), "--ranks 'probes.zarr' is no MODEL=STORE"),
        (("--models", "builtin:cifar10", "--ranks", "builtin:cifar10=probes.zarr"), "add --removal"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_2(tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    result = run("--data", "folder:/nowhere", "--out", tmp_path / "out", *options)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert not (tmp_path / "out").exists()
