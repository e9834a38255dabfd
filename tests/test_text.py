"""Hostile names in every medium, read by a real reader of it: they are shown as they are written, and nothing acts."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from classlens.analysis.analyze import AnalyzeResult, Missing
from classlens.cli.app import reporting
from classlens.errors import ClasslensError
from classlens.render.folders.analysis import write_csv
from classlens.render.markdown.analysis import summary
from classlens.render.markdown.tables import Bold, markdown_table
from classlens.render.terminal.inspection import tables
from classlens.text import csv_text, html_text, markdown_text, say, visible
from tests.render.records import Sizes, make_record

NAMES = (
    "plain name_of a_class 3.5 (left) [CLS]",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    '"><b id=x>&lt;&amp;',
    "**bold** _it_ __it__ ~~gone~~ `code` $x^2$",
    "[a](https://a.example) ![b](https://b.example) [c][d] <https://e.example>",
    "https://f.example www.g.example h@i.example",
    "a | b || \\| \\",
    "line\nbreak\r\nand\ttab\u2028\u0085",
    "\x1b[2J\x1b]0;title\x07\x9b31m \b\b",
    "abc\u202egpj\u2066x\u200f\ufeff",
    "caf\udce9",
    "# head",
    "- item",
    "1. item",
    "> said",
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "＝1",
    "[bold]markup[/bold] [red] :smile:",
    "猫 ñ 👩‍💻 می‌خواهم",
)


@pytest.mark.parametrize("name", NAMES)
def test_visible(name: str) -> None:
    shown = visible(name)
    assert shown.replace("\u200c", "").replace("\u200d", "").isprintable()
    shown.encode()  # no lone surrogate
    if name.replace("\u200c", "").replace("\u200d", "").isprintable():
        assert shown == name
    assert visible({name: [name, (name, 3)]}) == {shown: [shown, [shown, 3]]}


class _Html(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def read(html: str) -> _Html:
    reader = _Html()
    reader.feed(html)
    reader.close()
    return reader


@pytest.mark.parametrize("name", NAMES)
def test_html(name: str) -> None:
    reader = read(f'<p title="{html_text(name)}">{html_text(name)}</p>')
    assert reader.tags == ["p"]
    assert reader.text == visible(name)


def rendered(markdown: str) -> _Html:
    """As GitHub reads it, addresses aside."""
    return read(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown))


@pytest.mark.parametrize("name", NAMES)
def test_markdown(name: str) -> None:
    shown = visible(" ".join(name.split()))
    for markdown in (f"**first**: {markdown_text(name)} {markdown_text(name)}\n", f"- {markdown_text(name)}\n"):
        reader = rendered(markdown)
        assert set(reader.tags) <= {"p", "strong", "ul", "li"}
        assert reader.tags.count("ul") == reader.tags.count("li") == markdown.startswith("- ")
        assert shown in reader.text
    table = rendered(markdown_table([name, "b"], [[name, 3], [Bold(name), 4]]))
    assert set(table.tags) == {"table", "thead", "tbody", "tr", "th", "td", "strong"}
    assert (table.tags.count("th"), table.tags.count("td"), table.tags.count("strong")) == (2, 4, 1)
    assert table.text.count(shown) == 3
    assert not re.search(r"(?<!\\)://|www\.|\w@", markdown_text(name)), "no address becomes a link"


def test_a_summary() -> None:
    """With every name as a model and as a reason."""
    store = {"images": 3, "images_of_all": 4, "blocks": 2, "num_classes": 3, "conditions": ["clean"], "split": None}
    stores = [{**store, "model": name, "data": name, "data_note": name} for name in NAMES]
    missing = [Missing(name, "evolution", False, name) for name in NAMES]
    reader = rendered(summary(AnalyzeResult({}, missing, stores)))
    quiet = [{**store, "model": "a", "data": "b", "data_note": "c"}] * len(NAMES)
    plain = rendered(summary(AnalyzeResult({}, [Missing("a", "evolution", False, "b")] * len(NAMES), quiet)))
    assert reader.tags == plain.tags
    for name in NAMES:
        assert reader.text.count(visible(" ".join(name.split()))) >= 4


def test_csv(tmp_path: Path) -> None:
    """A spreadsheet takes what begins with such a character for a formula; readers of CSV find one row each."""
    names = [name for name in NAMES if name.isprintable() or "\udce9" not in name]  # pandas holds text only
    write_csv(pd.DataFrame({"model": names, "value": range(len(names)), "low": -0.5}), tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["model", "value", "low"]
    for name, (model, value, low) in zip(names, rows, strict=True):
        assert model[0] not in "=+-@＝＋－＠\t\r"
        assert model in (visible(name), f"'{name}")
        assert (value, low) == (str(names.index(name)), "-0.5"), "numbers are numbers"
    assert csv_text(-3) == -3


@pytest.mark.parametrize("name", NAMES)
def test_the_terminal(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    say(f"Store: {name}")
    say(name, style="red", stderr=True)
    out, err = capfd.readouterr()
    assert out == f"Store: {visible(name)}\n"
    assert err == f"{visible(name)}\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_the_terminal(name: str) -> None:
    record = make_record(Sizes(blocks=2, classes=(name, *map(str, range(9))), images=(name,), name=name, target=0))
    file = io.StringIO()
    for part in tables(record):
        Console(file=file, width=400, emoji=False).print(part, highlight=False)
    lines = file.getvalue().splitlines()
    assert len(lines) == len(file.getvalue().split("\n")) - 1
    assert all(line.replace("\u200c", "").replace("\u200d", "").isprintable() for line in lines)
    assert lines[0].startswith(f"{visible(name)}: ")


def test_an_error_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    @reporting
    def command() -> None:
        raise ClasslensError("\x1b[2Jfirst\nsecond")

    with pytest.raises(Exception, match="2"):
        command()
    assert capfd.readouterr().err == "Error: \\x1b[2Jfirst\\nsecond\n"
