"""Tutorials run when the site is built, and are shown with their outputs.

A tutorial is a page in ``docs/tutorials``, a notebook in jupytext's Markdown. Its blocks of Python are cells that run
from top to bottom in an empty folder; an exception stops the build. Pictures and reports become files of the site, and
so does the notebook itself. Executed notebooks are kept in ``.docs_cache`` until the page or classlens changes.
"""

from __future__ import annotations

import re
import tempfile
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from html import escape, unescape
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".docs_cache"
TUTORIAL = re.compile(r"tutorials/(?!index\.md)[\w-]+\.md")
CELL = re.compile(r"^```python\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
FRAME = re.compile(r'(<iframe[^>]*?) srcdoc="([^"]*)"')
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
SECONDS = 300
"""Limit of a cell."""

PAGES: dict[str, list[str]] = {}
"""HTML of the outputs of each cell, by page."""


def notebook(markdown: str) -> Any:
    """The notebook of a page, not yet executed."""
    cells = jupytext.reads(markdown, fmt="md").cells
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # the same at every build
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def executed(markdown: str) -> Any:
    """The notebook of a page with its outputs; raises ``CellExecutionError`` for an exception in it."""
    sources = sorted((ROOT / "src").rglob("*.py"))
    content = sha256(b"\0".join([markdown.encode(), *(source.read_bytes() for source in sources)]))
    kept = CACHE / f"{content.hexdigest()[:24]}.ipynb"
    if kept.exists():
        return nbformat.read(kept, as_version=4)
    made = notebook(markdown)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "matplotlibrc").write_text("figure.dpi: 110\n", encoding="utf-8")
        quiet = ["--log-level=ERROR"]
        resources = {"metadata": {"path": folder}}
        NotebookClient(
            made, timeout=SECONDS, startup_timeout=SECONDS, extra_arguments=quiet, resources=resources
        ).execute()
    CACHE.mkdir(exist_ok=True)
    nbformat.write(made, kept)
    return made


def shown(output: Any, stem: str, files: dict[str, bytes]) -> str:
    """HTML of an output; its pictures and framed pages are added to ``files``, by names that begin with ``stem``."""
    if output.output_type == "stream":
        return text_html(output.text) if output.name == "stdout" else ""
    data = output.data
    if "text/html" in data:
        return html_output(data["text/html"], stem, files)
    if "image/png" in data:
        name = f"{stem}.png"
        files[name] = b64decode(data["image/png"])
        return f'<p><img alt="Output of the code above" loading="lazy" src="{name.rpartition("/")[2]}"></p>'
    drawn = data["text/plain"].startswith(("<Axes", "<matplotlib", "Text("))  # the picture follows
    return "" if drawn else text_html(data["text/plain"])


def text_html(text: str) -> str:
    return f"<pre><code>{escape(ESCAPES.sub('', text).rstrip())}</code></pre>"


def html_output(html: str, stem: str, files: dict[str, bytes]) -> str:
    """A result's own HTML, apart from the styles of the site: framed pages as files that load when scrolled to.

    Tables of pandas have the style of the site.
    """
    if 'class="dataframe"' in html:
        return re.sub(r"<style scoped>.*?</style>| border=\"1\" class=\"dataframe\"", "", html, flags=re.DOTALL)

    def framed(frame: re.Match[str]) -> str:
        name = f"{stem}.html"
        files[name] = unescape(frame[2]).encode("utf-8")
        return f'{frame[1]} loading="lazy" src="{name.rpartition("/")[2]}"'

    html = FRAME.sub(framed, html).replace(":root", ":host")
    return f'<div><template shadowrootmode="open">{html}</template></div>'


def outputs(made: Any, page: str, files: dict[str, bytes]) -> list[str]:
    """HTML of the outputs of each cell of code."""
    stem = page.removesuffix(".md")
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    return [
        "".join(shown(output, f"{stem}/{cell}-{number}", files) for number, output in enumerate(code[cell].outputs))
        for cell in range(len(code))
    ]


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Called by mkdocs before it reads pages: runs the tutorials."""
    pages = {file.src_uri: file.content_string for file in files if TUTORIAL.fullmatch(file.src_uri)}
    with ThreadPoolExecutor(2) as pool:
        made = dict(zip(pages, pool.map(executed, pages.values()), strict=True))
    for page, markdown in pages.items():
        texts: dict[str, bytes] = {page.replace(".md", ".ipynb"): nbformat.writes(notebook(markdown)).encode()}
        PAGES[page] = outputs(made[page], page, texts)
        for name, content in texts.items():
            files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by mkdocs for every page: marks the places of outputs."""
    if page.file.src_uri not in PAGES:
        return markdown
    numbers = iter(range(len(PAGES[page.file.src_uri])))
    return CELL.sub(lambda cell: f"{cell[0]}\n\n<!-- output {next(numbers)} -->\n", markdown)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Called by mkdocs for every page: puts outputs in their places."""
    shown_outputs = PAGES.get(page.file.src_uri, [])
    for number, output in enumerate(shown_outputs):
        html = html.replace(f"<!-- output {number} -->", f'<div class="output">{output}</div>' if output else "")
    return html
