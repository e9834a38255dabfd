"""Tutorials and pages with code: their Python runs, and the site shows what it gives."""

from __future__ import annotations

import base64
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parent.parent.parent / "docs"
TUTORIALS = sorted(page for page in (DOCS / "tutorials").glob("*.md") if page.stem != "index")
CELL = re.compile(r"^```python\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def executed() -> dict[str, Any]:
    """The hook that runs tutorials when the site is built."""
    pytest.importorskip("nbclient", reason="nbclient comes with the extra docs")
    pytest.importorskip("mkdocs", reason="mkdocs comes with the extra docs")
    return runpy.run_path(str(DOCS / "executed.py"))


def run_cells(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of Python of a page, in one namespace and in an empty folder."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    for number, code in enumerate(CELL.findall(page.read_text(encoding="utf-8"))):
        exec(compile(code, f"{page.name}, cell {number}", "exec"), names)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    run_cells(page, tmp_path, monkeypatch)


@pytest.mark.slow
def test_code_of_other_tools_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in ("captum", "pytorch_grad_cam", "torchcam"):
        pytest.importorskip(tool)
    run_cells(DOCS / "from-other-tools.md", tmp_path, monkeypatch)


def test_every_tutorial_is_in_the_index_and_checks_something() -> None:
    index = (DOCS / "tutorials/index.md").read_text(encoding="utf-8")
    assert len(TUTORIALS) == 6
    for page in TUTORIALS:
        text = page.read_text(encoding="utf-8")
        assert f"({page.name})" in index
        assert f"({page.stem}.ipynb)" in text, "no link to the notebook"
        assert "assert" in "".join(CELL.findall(text))


def test_a_page_becomes_a_notebook(executed: dict[str, Any]) -> None:
    page = "# Title\n\n```python\nx = 1\n```\n\nText.\n\n```text\nls\n```\n\n```python\nx\n```\n"
    cells = [(cell.cell_type, cell.source) for cell in executed["notebook"](page).cells]
    assert cells == [
        ("markdown", "# Title"),
        ("code", "x = 1"),
        ("markdown", "Text.\n\n```text\nls\n```"),
        ("code", "x"),
    ]


def test_outputs_stand_below_their_code(executed: dict[str, Any]) -> None:
    from nbformat.v4 import new_output

    made = executed["notebook"]("```python\na\n```\n\n```python\nb\n```\n\n```python\nc\n```\n")
    png = base64.b64encode(b"picture").decode()
    frame = '<iframe sandbox="allow-scripts" srcdoc="&lt;p&gt;A &amp;amp; B&lt;/p&gt;"></iframe>'
    made.cells[0].outputs = [
        new_output("stream", name="stdout", text="1 < 2\n"),
        new_output("stream", name="stderr", text="noise"),
    ]
    made.cells[1].outputs = [
        new_output("display_data", {"image/png": png, "text/plain": "<Figure>"}),
        new_output("execute_result", {"text/html": frame}),
    ]
    made.cells[2].outputs = [
        new_output("execute_result", {"text/html": '<table border="1" class="dataframe"></table>'})
    ]
    files: dict[str, bytes] = {}
    first, second, third = executed["outputs"](made, "tutorials/a.md", files)
    assert first == "<pre><code>1 &lt; 2</code></pre>"
    assert files == {"tutorials/a/1-0.png": b"picture", "tutorials/a/1-1.html": b"<p>A &amp; B</p>"}
    assert 'src="1-0.png"' in second
    assert 'loading="lazy" src="1-1.html"' in second
    assert "srcdoc" not in second
    assert third == "<table></table>"

    executed["PAGES"]["tutorials/a.md"] = [first, "", third]
    page = type("Page", (), {"file": type("File", (), {"src_uri": "tutorials/a.md"})})
    text = executed["on_page_markdown"]("```python\na\n```\n\n```python\nb\n```\n\n```python\nc\n```\n", page)
    assert [text.index(f"<!-- output {cell} -->") for cell in range(3)] == sorted(
        text.index("```python\n" + name) + len("```python\n") + len(name) + len("\n```\n\n") for name in "abc"
    )
    html = executed["on_page_content"]("<!-- output 0 -->|<!-- output 1 -->|<!-- output 2 -->", page)
    assert html == f'<div class="output">{first}</div>||<div class="output">{third}</div>'
