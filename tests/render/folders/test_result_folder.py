"""A folder of results is there whole or not at all, whatever happens while it is made."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from classlens.errors import ClasslensError
from classlens.render.figures.inspection import save_figures
from classlens.render.folders.result_folder import INSPECTION, check_replaceable, replacing
from tests.render.records import Sizes, make_pictures, make_record

MARKER = INSPECTION.marker
Files = dict[str, str]


def files(folder: Path) -> Files:
    """Every file below a folder with what it holds, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write(out: Path, text: str) -> None:
    with replacing(out, INSPECTION) as folder:
        (folder / MARKER).write_text(text)
        (folder / "01-tokens.png").write_text(text)


def made(text: str) -> Files:
    return {MARKER: text, "01-tokens.png": text}


def test_a_new_folder_with_its_parents(tmp_path: Path) -> None:
    out = tmp_path / "some" / "where" / "report"
    write(out, "first")
    assert files(out) == made("first")
    assert os.listdir(out.parent) == ["report"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    out = tmp_path / "report"
    out.mkdir()
    write(out, "first")
    assert files(out) == made("first")


def test_an_earlier_result_is_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "report"
    write(out, "first")
    (out / "02-tokens.png").write_text("of the second of two images")
    write(out, "second")
    assert files(out) == made("second")
    assert os.listdir(tmp_path) == ["report"]


def test_nothing_is_seen_before_the_end(tmp_path: Path) -> None:
    out = tmp_path / "report"
    with replacing(out, INSPECTION) as folder:
        (folder / MARKER).write_text("new")
        assert not out.exists()
        assert folder.parent.parent == tmp_path, "on the same disk, so that it can be renamed"
    assert files(out) == {MARKER: "new"}


def test_others_may_read_the_result(tmp_path: Path) -> None:
    """Temporary folders are their owner's alone; the result is like any folder that the user makes."""
    (tmp_path / "plain").mkdir()
    write(tmp_path / "report", "first")
    assert (tmp_path / "report").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, ClasslensError, MemoryError])
@pytest.mark.parametrize("earlier", [True, False])
def test_when_the_body_raises_all_is_as_before(error: type[BaseException], earlier: bool, tmp_path: Path) -> None:
    out = tmp_path / "report"
    if earlier:
        write(out, "first")
    with pytest.raises(error), replacing(out, INSPECTION) as folder:
        (folder / MARKER).write_text("half")
        raise error("while writing")
    assert files(tmp_path) == ({f"report/{name}": text for name, text in made("first").items()} if earlier else {})
    assert os.listdir(tmp_path) == (["report"] if earlier else []), "no temporary folder is left"


def test_a_full_disk_is_an_error_of_the_output(tmp_path: Path) -> None:
    with pytest.raises(ClasslensError, match="cannot be written \\(No space left on device\\)") as caught:
        with replacing(tmp_path / "report", INSPECTION):
            raise OSError(28, "No space left on device")
    assert "another --out" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_an_error_without_a_number_still_says_what_happened(tmp_path: Path) -> None:
    with pytest.raises(ClasslensError, match="encoder error"), replacing(tmp_path / "report", INSPECTION):
        raise OSError("encoder error")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_the_earlier_result_comes_back_when_the_exchange_itself_fails(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report"
    write(out, "first")
    rename = Path.rename

    def fails_on_the_new_one(self: Path, target: Path) -> Path:
        if self.name == "result":
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_on_the_new_one)
    with pytest.raises((ClasslensError, KeyboardInterrupt)):
        write(out, "second")
    assert files(out) == made("first")
    assert os.listdir(tmp_path) == ["report"]


# What is not touched


def test_a_folder_with_other_files(tmp_path: Path) -> None:
    out = tmp_path / "photos"
    out.mkdir()
    (out / "holiday.jpg").write_text("precious")
    for call in (lambda: check_replaceable(out, INSPECTION), lambda: write(out, "first")):
        with pytest.raises(ClasslensError, match="holds other files") as caught:
            call()
        assert repr(str(out)) in str(caught.value)
        assert MARKER in str(caught.value)
    assert files(tmp_path) == {"photos/holiday.jpg": "precious"}
    assert os.listdir(tmp_path) == ["photos"]


@pytest.mark.parametrize("name", ["notes.txt", ".notes", "01-tokens.png.bak", "1-tokens.png", "01-other.png"])
def test_a_file_that_somebody_put_beside_an_earlier_result(name: str, tmp_path: Path) -> None:
    out = tmp_path / "report"
    write(out, "first")
    (out / name).write_text("precious")
    for call in (lambda: check_replaceable(out, INSPECTION), lambda: write(out, "second")):
        with pytest.raises(ClasslensError, match="nothing was written") as caught:
            call()
        assert repr(name) in str(caught.value)
    assert files(out) == {**made("first"), name: "precious"}
    assert os.listdir(tmp_path) == ["report"]


def test_a_folder_that_somebody_put_beside_an_earlier_result(tmp_path: Path) -> None:
    out = tmp_path / "report"
    write(out, "first")
    (out / "02-tokens.png").mkdir()
    with pytest.raises(ClasslensError, match="'02-tokens.png'"):
        write(out, "second")
    assert (out / "02-tokens.png").is_dir()


def test_a_file_that_comes_while_the_result_is_made(tmp_path: Path) -> None:
    out = tmp_path / "report"
    write(out, "first")
    with pytest.raises(ClasslensError, match=r"'notes\.txt'"), replacing(out, INSPECTION) as folder:
        (folder / MARKER).write_text("second")
        (out / "notes.txt").write_text("precious")
    assert files(out) == {**made("first"), "notes.txt": "precious"}


def test_every_file_of_a_real_inspection_is_known(tmp_path: Path) -> None:
    """Else the second run would refuse what the first one wrote."""
    sizes = Sizes()
    save_figures(make_record(sizes), make_pictures(sizes), tmp_path)
    assert [path.name for path in tmp_path.iterdir() if not re.fullmatch(INSPECTION.files, path.name)] == []


def test_a_folder_whose_only_file_is_hidden(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    with pytest.raises(ClasslensError, match="holds other files"):
        check_replaceable(tmp_path, INSPECTION)


def test_a_marker_that_is_a_folder_is_no_sign(tmp_path: Path) -> None:
    (tmp_path / MARKER).mkdir()
    with pytest.raises(ClasslensError, match="holds other files"):
        check_replaceable(tmp_path, INSPECTION)


def test_a_file(tmp_path: Path) -> None:
    out = tmp_path / "report"
    out.write_text("precious")
    for call in (lambda: check_replaceable(out, INSPECTION), lambda: write(out, "first")):
        with pytest.raises(ClasslensError, match="is a file"):
            call()
    assert files(tmp_path) == {"report": "precious"}


def test_a_file_in_the_place_of_a_parent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ClasslensError, match="cannot be written") as caught:
        write(tmp_path / "file" / "report", "first")
    assert repr(str(tmp_path / "file" / "report")) in str(caught.value)
    assert files(tmp_path) == {"file": "precious"}


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    for call in (lambda out: check_replaceable(out, INSPECTION), lambda out: write(out, "first")):
        with pytest.raises(ClasslensError, match="cannot be written"):
            call(tmp_path / ("x" * 300))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_a_parent_that_may_not_be_written(tmp_path: Path) -> None:
    parent = tmp_path / "locked"
    parent.mkdir(mode=0o500)
    with pytest.raises(ClasslensError, match="cannot be written"):
        write(parent / "report", "first")
    assert os.listdir(parent) == []
