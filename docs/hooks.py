"""Tables of the documentation that list registries, filled in when the site is built.

A page holds a marker, ``<!-- table: methods -->``, and mkdocs shows the table of ``classlens.METHODS`` in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from operator import attrgetter
from typing import Any

MARKER = re.compile(r"^<!-- table: ([\w-]+) -->$", flags=re.MULTILINE)

Columns = Mapping[str, Callable[[str, Any], str]]
"""Text of a cell by the heading of its column, from the name and the record of a row."""


def code_name(name: str, record: Any) -> str:
    return f"`{name}`"


def about(name: str, record: Any) -> str:
    """The one-line description of a record."""
    text: str = record.about
    return text


def codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def table(rows: Mapping[str, Any], columns: Columns) -> str:
    """A Markdown table with a row for each record."""
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[cell(name, rows[name]) for cell in columns.values()] for name in rows]
    escaped = ([" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def dims_beside_tokens(name: str, method: Any) -> str:
    return codes(dim for dim in method.dims if dim not in ("image", "token"))


def needs_of_metric(name: str, metric: Any) -> str:
    """Requirements of a metric for data and model."""
    needs = {
        "masks": metric.needs_masks,
        "four classes": metric.images == "mosaic",
        "a random twin": metric.needs_random_twin,
    }
    return ", ".join(need for need in needs if needs[need])


def needs_of_condition(name: str, condition: Any) -> str:
    """Requirements of a condition for data, model and command line."""
    decoder = {"class_embedding": "", "tuned_lens": "`--tuned-lens`", "probes": "`--probes`"}[condition.decoder]
    needs = ["masks" if condition.needs_masks else "", "`[CLS]`" if condition.needs_cls else "", decoder]
    return ", ".join(filter(None, needs))


def needs_of_experiment(name: str, experiment: Any) -> str:
    """What must be measured for an experiment."""
    texts = [f"{experiment.min_stores} stores"] if experiment.min_stores > 1 else []
    for need in experiment.needs:
        if not need.optional:
            conditions = " or ".join(f"`{condition}`" for condition in need.any_condition)
            memories = "`--memories`" if need.memories or need.parameters else ""
            texts += ["masks" if need.masks else "", conditions, memories]
            texts += ["`[CLS]`" if need.cls else "", "labels" if need.labels else ""]
    return ", ".join(filter(None, texts))


ATLAS_TABLES = (
    *("classes", "confusions", "trajectory", "writers", "tips", "heads", "head_map", "head_tokens"),
    *("units", "unit_values", "unit_tokens", "unit_writers", "class_tokens"),
)

COMPARISON_TABLES = ("summary", "classes", "images", "flips", "heads", "head_classes", "trajectory")

REGISTRIES: Mapping[str, tuple[str, Columns]] = {
    "methods": (
        "classlens.explain.registry:METHODS",
        {
            "method": code_name,
            "explanation": about,
            "dims beside `image`, `token`": dims_beside_tokens,
            "options": lambda _, method: codes(method.options),
            "needs": lambda _, method: ", ".join(method.needs),
            "source": lambda _, method: method.source,
        },
    ),
    "metrics": (
        "classlens.tasks.evaluation.registry:METRICS",
        {
            "metric": code_name,
            "measures": about,
            "needs": needs_of_metric,
        },
    ),
    "layouts": (
        "classlens.data.registry:LAYOUTS",
        {"`--data`": lambda name, layout: f"`{name}:{layout.place}`", "data set": about},
    ),
    "conditions": (
        "classlens.tasks.tokens.conditions.registry:CONDITIONS",
        {"condition": code_name, "meaning": about, "needs": needs_of_condition},
    ),
    "experiments": (
        "classlens.analysis.registry:EXPERIMENTS",
        {"experiment": code_name, "shows": about, "needs": needs_of_experiment},
    ),
    "edits": ("classlens.forward.edits.registry:EDITS", {"edit": code_name, "effect": about}),
    "sweep-parts": (
        "classlens.forward.sweep_parts:SWEEP_PARTS",
        {"`over`": code_name, "parts": about, "dim": lambda _, parts: f"`{parts.dim}`"},
    ),
    "sweep-metrics": ("classlens.core.sweep_metrics:SWEEP_METRICS", {"`metric`": code_name, "value": about}),
    "corruptions": ("classlens.models.corruptions:CORRUPTIONS", {"corruption": code_name, "effect": about}),
    "head-scores": ("classlens.tasks.ablation.scores:HEAD_SCORES", {"score": code_name, "meaning": about}),
    "atlas": ("classlens.analysis.atlas.tables:TABLES", {"table": code_name, "rows": about}),
    **{
        f"atlas-{name}": (
            f"classlens.analysis.atlas.tables:{name.upper()}.columns",
            {"column": code_name, "meaning": about},
        )
        for name in ATLAS_TABLES
    },
    "comparison": ("classlens.analysis.comparison.tables:TABLES", {"table": code_name, "rows": about}),
    "comparison-measures": (
        "classlens.analysis.comparison.measures:MEASURES",
        {"measure": code_name, "value": lambda _, text: str(text)},
    ),
    **{
        f"comparison-{name}": (
            f"classlens.analysis.comparison.tables:{name.upper()}.columns",
            {"column": code_name, "meaning": about},
        )
        for name in COMPARISON_TABLES
    },
    "families": (
        "classlens.models.registry:ADAPTERS",
        {
            "library": lambda _, adapter: adapter.label,
            "models": about,
            "names": lambda _, adapter: codes(adapter.names),
            "weights": lambda _, adapter: adapter.weights,
        },
    ),
}


def registry(name: str) -> Mapping[str, Any]:
    module, _, attribute = REGISTRIES[name][0].partition(":")
    rows: Mapping[str, Any] = attrgetter(attribute)(import_module(module))
    return rows


def commands() -> str:
    from typer.main import get_command

    from classlens.cli import app

    group: Any = get_command(app)
    return table(
        group.commands, {"command": code_name, "purpose": lambda _, command: command.get_short_help_str(limit=200)}
    )


def extras() -> str:
    """The commands that need each extra, and the line that installs it."""
    from classlens.extras import COMMANDS, LIBRARIES

    rows = {extra: [command for command in COMMANDS if COMMANDS[command] == extra] for extra in COMMANDS.values()}
    return table(
        rows,
        {
            "commands": lambda _, names: codes(names),
            "libraries": lambda extras, _: ", ".join(
                dict.fromkeys(name for extra in extras.split(",") for name in LIBRARIES[extra])
            ),
            "install": lambda extras, _: f"`pip install 'classlens[{extras}]'`",
        },
    )


def filled(name: str) -> str:
    """The table of a marker; raises KeyError for an unknown one."""
    functions = {"commands": commands, "extras": extras}
    return functions[name]() if name in functions else table(registry(name), REGISTRIES[name][1])


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page."""
    return MARKER.sub(lambda marker: filled(marker[1]), markdown)
