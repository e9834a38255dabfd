"""``list:FILE``: one image path per line, with or without its class."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from classlens.data.columns import label_column
from classlens.data.dataset import ClassName, Dataset, ImageFiles
from classlens.data.layout import Layout
from classlens.errors import ClasslensError


def read(spec: str, root: str, split: str | None, column: str | None = None) -> Dataset:
    """Lines of ``path``, or ``path``, tab, class; a ``.csv`` has the column ``path`` and optionally one of classes.

    Paths are relative to the folder of the file. Blank lines and lines that start with ``#`` are skipped.
    """
    file = Path(root).expanduser()
    if split is not None:
        raise ClasslensError(f"data {spec!r} is one list of images and has no splits: leave out split {split!r}")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ClasslensError(f"data {spec!r} cannot be read ({reason}): give a text file of image paths") from None
    if column is not None and file.suffix.lower() != ".csv":
        raise ClasslensError(f"data {spec!r} has no columns: leave out label column {column!r}, or give a .csv")
    names: dict[str, int] = {}
    line_labels: list[str | None] = []
    for line, path, label in _rows(spec, file, text, column):
        if not path:
            raise ClasslensError(f"data {spec!r} gives no path in line {line}: give one, or take the line away")
        if path in names:
            raise ClasslensError(f"data {spec!r} names {path!r} in line {names[path]} and in line {line}: name it once")
        if line_labels and (label is None) != (line_labels[0] is None):
            raise ClasslensError(
                f"data {spec!r} gives a class in some lines and none in others, first in line {line}: give one in "
                "every line, or in none"
            )
        names[path] = line
        line_labels.append(label)
    classes = sorted({label for label in line_labels if label is not None})
    index = {label: number for number, label in enumerate(classes)}
    labels = [-1 if label is None else index[label] for label in line_labels]
    files = ImageFiles(file.parent, tuple(names))
    return Dataset.whole(spec, None, tuple(names), labels, [ClassName(name) for name in classes], files)


def _rows(spec: str, file: Path, text: str, wanted: str | None) -> Iterator[tuple[int, str, str | None]]:
    """The number of each line, its path and its class."""
    if file.suffix.lower() == ".csv":
        reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
        columns = list(reader.fieldnames or ())
        paths = next((column for column in columns if column.strip().lower() == "path"), None)
        if paths is None:
            raise ClasslensError(f"data {spec!r} has no column 'path' in its first line: name its columns path,label")
        labels = label_column(spec, [column for column in columns if column != paths], wanted)
        for row in reader:
            if any(row.values()):
                yield reader.line_num, (row[paths] or "").strip(), (row.get(labels or "") or "").strip() or None
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            path, _, label = line.partition("\t")
            yield number, path.strip(), label.strip() or None


LAYOUT = Layout(
    "File list", "FILE", "one image path per line, with or without its class; also .csv", read, read_column=read
)
