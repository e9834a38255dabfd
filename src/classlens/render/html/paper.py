"""A page with the paper's published values beside measured ones, and the figures of the analysis."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from math import isnan
from pathlib import Path
from string import Template

import pandas as pd

from classlens.analysis.analyze import AnalyzeResult
from classlens.analysis.published import REMOVAL, SOURCE, Comparison, compare
from classlens.analysis.registry import EXPERIMENTS
from classlens.errors import ClasslensError, cause
from classlens.text import html_text


def write_paper(
    analysis: AnalyzeResult,
    figures: Path,
    path: Path,
    *,
    version: str,
    problems: Mapping[str, str] | None = None,
    removal: Mapping[str, pd.DataFrame] | None = None,
) -> None:
    """Write the page: one file that opens from disk and loads nothing.

    ``write_paper(analysis, Path("analysis/figures"), Path("paper.html"), version=classlens.__version__)``

    ``figures`` is the folder with the figures of the analysis as PNG. ``problems`` and ``removal`` are those of
    ``classlens.analysis.paper.reproduce``.
    """
    template = Template(files("classlens.render.html").joinpath("paper.html").read_text(encoding="utf-8"))
    values = {
        "version": html_text(version),
        "source": html_text(SOURCE),
        "measured": "\n".join(_measured(analysis)),
        "problems": "\n".join(
            f"<li>{html_text(model)}: {html_text(reason)}</li>" for model, reason in (problems or {}).items()
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


def _measured(analysis: AnalyzeResult) -> Iterator[str]:
    for store in analysis.stores:
        note = f" ({store['data_note']})" if store["data_note"] else ""
        data = f"{store['data']} {store['split'] or ''}".strip()
        images = f"{store['images']:,} images of {data}{note}"
        if store["images"] != store["images_of_all"]:
            images += f"; {store['images_of_all'] - store['images']:,} more are not measured"
        yield f"<li><strong>{html_text(store['model'])}</strong>: {html_text(images)}</li>"


def _rows(comparisons: Sequence[Comparison]) -> Iterator[str]:
    reasons: dict[str, set[str]] = {comparison.published.model: set() for comparison in comparisons}
    for comparison in comparisons:
        if comparison.published.experiment != REMOVAL:
            reasons[comparison.published.model].add(comparison.reason)
    # A model without any value gives its reason once, in its heading.
    shared = {model: next(iter(texts)) if len(texts) == 1 else "" for model, texts in reasons.items()}
    model = ""
    for comparison in comparisons:
        published = comparison.published
        if published.model != model:
            model = published.model
            heading = f"{model}: not measured: {shared[model]}" if shared[model] else model
            yield f'<tr class="model"><th colspan="4" scope="rowgroup">{html_text(heading)}</th></tr>'
        if isnan(comparison.value):
            reason = "" if comparison.reason == shared[model] else f": {comparison.reason}"
            measured = f'<td colspan="2" class="missing">not measured{html_text(reason)}</td>'
        else:
            interval = f"{_percent(comparison.low)} to {_percent(comparison.high)}"
            difference = f"{100 * (comparison.value - published.value):+.2f}".replace("-", "−")
            value = f"{_percent(comparison.value)} <small>({interval}; n = {comparison.images:,})</small>"
            measured = f"<td>{value}</td><td>{difference}</td>"
        label = html_text(published.label)
        yield f'<tr><th scope="row">{label}</th><td>{_percent(published.value)}</td>{measured}</tr>'


def _percent(share: float) -> str:
    """A share in percent with two decimals, or three below one percent."""
    return f"{100 * share:.3f}" if share < 0.01 else f"{100 * share:.2f}"


def _figures(analysis: AnalyzeResult, figures: Path) -> Iterator[str]:
    for experiment in EXPERIMENTS.values():
        if experiment.name not in analysis.tables:
            continue
        paths = [figures / f"{chart.file_stem(experiment.name)}.png" for chart in experiment.charts]
        pictures = [
            f'<img alt="{html_text(experiment.label)}" src="data:image/png;base64,{_encoded(path)}">'
            for path in paths
            if path.is_file()
        ]
        if pictures:
            heading = f"<h3>{html_text(experiment.label)}</h3><p>{html_text(experiment.definition)}</p>"
            yield f'<section class="card">{heading}<div class="pictures">{"".join(pictures)}</div></section>'
    rows = [
        f"<li>{html_text(missing.model)}, {html_text(missing.experiment)}{'' if missing.whole else ', in part'}: "
        f"{html_text(missing.reason)}</li>"
        for missing in analysis.missing
    ]
    if rows:
        yield f'<section class="card"><h3>Not measured</h3><ul>{"".join(rows)}</ul></section>'


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
