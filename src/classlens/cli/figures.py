"""`classlens figures`: from tables to figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from classlens.cli.app import app, listed, reporting
from classlens.text import say


@app.command()
@reporting
def figures(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out of `classlens analyze`.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the figures; DIR/figures if left out.")] = None,
    experiments: Annotated[str, typer.Option(help="With commas, such as evolution,building; or all.")] = "all",
    formats: Annotated[str, typer.Option(help="With commas: png, svg.")] = "png,svg",
) -> None:
    """Draw the figures of an analysis, each from its table alone.

    Experiments: {experiments}.
    """
    from classlens.render.folders.figures import figures as draw
    from classlens.render.terminal.progress import progress_bar

    with progress_bar("drawing") as update:
        paths = draw(
            folder,
            out=out,
            experiments="all" if experiments == "all" else listed(experiments),
            formats=listed(formats),
            report=lambda done, tables: update("drawing", done, tables),
        )
    for path in paths:
        say(str(path))
