"""Files that are written completely or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from classlens.store.atomic import atomic_write, clear_leftovers


def test_the_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_text() == "one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    with atomic_write(path) as temporary:
        temporary.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_keeps_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("one")
    for error in (OSError, KeyboardInterrupt):
        with pytest.raises(error):
            with atomic_write(path) as temporary:
                temporary.write_text("half")
                raise error
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_a_killed_writer(tmp_path: Path) -> None:
    for name in (".a.txt.x1.partial", ".b.txt.x2.partial", "a.txt", "partial"):
        (tmp_path / name).write_text("half")
    clear_leftovers(tmp_path, ".a.txt.*")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.txt.x2.partial", "a.txt", "partial"]
    clear_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "partial"]
