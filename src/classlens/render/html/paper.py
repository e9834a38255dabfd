"""A page that sets the paper's published values beside measured ones, with the figures of the analysis."""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from math import isnan
from pathlib import Path
from string import Template

import pandas as pd

from classlens.analysis.analyze import Analysis
from classlens.analysis.published import SOURCE, Compared, compare
from classlens.analysis.registry import EXPERIMENTS
from classlens.errors import ClasslensError, cause
from classlens.render.analysis import figure_name


def write_paper(
    analysis: Analysis,
    figures: Path,
    path: Path,
    *,
    version: str,
    problems: Mapping[str, str] | None = None,
    removal: Mapping[str, pd.DataFrame] | None = None,
) -> None:
    """Write the page, one file that opens from disk and loads nothing; ``figures`` holds the analysis' figures as PNG.

    write_paper(analysis, Path("analysis/figures"), Path("paper.html"), version=classlens.__version__)
    """
    template = Template(files("classlens.render.html").joinpath("paper.html").read_text(encoding="utf-8"))
    values = {
        "version": html.escape(version),
        "source": html.escape(SOURCE),
        "measured": "\n".join(_measured(analysis)),
        "problems": "\n".join(
            f"<li>{html.escape(model)}: {html.escape(why)}</li>" for model, why in (problems or {}).items()
        ),
        "rows": "\n".join(_rows(compare(analysis, problems, removal))),
        "figures": "\n".join(_figures(analysis, figures)),
        "confidence": f"{100 * analysis.statistics.confidence:g}",
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(template.substitute(values), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ClasslensError(f"page {str(path)!r} cannot be written ({cause(error)}): give another --out") from None
    finally:
        temporary.unlink(missing_ok=True)


def _measured(analysis: Analysis) -> Iterator[str]:
    for store in analysis.stores:
        note = f" ({store['data_note']})" if store["data_note"] else ""
        data = f"{store['data']} {store['split'] or ''}".strip()
        images = f"{store['images']:,} images of {data}{note}"
        if store["images"] != store["images_of_all"]:
            images += f"; {store['images_of_all'] - store['images']:,} more are not measured"
        yield f"<li><strong>{html.escape(store['model'])}</strong>: {html.escape(images)}</li>"


def _rows(compared: Sequence[Compared]) -> Iterator[str]:
    alike = {one.published.model: set[str]() for one in compared}
    for one in compared:
        if one.published.experiment != "removal":
            alike[one.published.model].add(one.reason)
    model = ""
    for one in compared:
        # A model that is missing altogether says why once.
        (whole,) = alike[one.published.model] if len(alike[one.published.model]) == 1 else ("",)
        if one.published.model != model:
            model = one.published.model
            why = f": not measured: {whole}" if whole else ""
            yield f'<tr class="model"><th colspan="4" scope="rowgroup">{html.escape(model + why)}</th></tr>'
        reason = "" if one.reason == whole else f": {one.reason}"
        published = _number(one.published.value)
        if isnan(one.value):
            measured = f'<td colspan="2" class="missing">not measured{html.escape(reason)}</td>'
        else:
            interval = f"{_number(one.low)} to {_number(one.high)}"
            apart = f"{100 * (one.value - one.published.value):+.2f}".replace("-", "−")
            measured = f"<td>{_number(one.value)} <small>({interval}; n = {one.images:,})</small></td><td>{apart}</td>"
        yield f'<tr><th scope="row">{html.escape(one.published.what)}</th><td>{published}</td>{measured}</tr>'


def _number(share: float) -> str:
    """In percent, with two digits behind the point, or as many as a small share needs."""
    return f"{100 * share:.3f}" if share < 0.01 else f"{100 * share:.2f}"


def _figures(analysis: Analysis, figures: Path) -> Iterator[str]:
    for experiment in EXPERIMENTS.values():
        if experiment.name not in analysis.tables:
            continue
        paths = [figures / f"{figure_name(experiment.name, chart.suffix)}.png" for chart in experiment.charts]
        pictures = [
            f'<img alt="{html.escape(experiment.title)}" src="data:image/png;base64,{_encoded(path)}">'
            for path in paths
            if path.is_file()
        ]
        if pictures:
            heading = f"<h3>{html.escape(experiment.title)}</h3><p>{html.escape(experiment.about)}</p>"
            yield f'<section class="card">{heading}<div class="pictures">{"".join(pictures)}</div></section>'
    rows = [
        f"<li>{html.escape(one.model)}, {html.escape(one.experiment)}{'' if one.whole else ', in part'}: "
        f"{html.escape(one.reason)}</li>"
        for one in analysis.missing
    ]
    if rows:
        yield f'<section class="card"><h3>Not measured</h3><ul>{"".join(rows)}</ul></section>'


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
