"""A file that is there whole or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from classlens.store.atomic import atomic_write


def test_it_takes_its_place_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with atomic_write(path) as made:
        made.write_text("one")
        assert not path.exists()
        assert made.parent == path.parent
    assert path.read_text() == "one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    with atomic_write(path) as made:
        made.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_what_raises_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("one")
    for error in (OSError, KeyboardInterrupt):
        with pytest.raises(error):
            with atomic_write(path) as made:
                made.write_text("half")
                raise error
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]
