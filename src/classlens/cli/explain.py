"""`classlens explain`: maps of the evidence for a class, by one method or many."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from classlens.cli import options as given
from classlens.cli.app import app, listed, reporting
from classlens.cli.images import (
    Classes,
    Images,
    SkipBad,
    image_files,
    relative_paths,
    skipped_lines,
    targets_of,
    traces_of,
)
from classlens.cli.options import ModelOptions, expand_options
from classlens.errors import ClasslensError
from classlens.text import say

_BATCH = 8


@app.command()
@reporting
@expand_options
def explain(
    images: Images,
    weights: ModelOptions,
    model: given.Model = "builtin:photos",
    class_: Classes = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Methods, separated by commas: {methods}; or all. Options follow the name: class_gradient:loss=logit. "
            "file.py:function for maps of another tool. Left out: log_odds, or the nearest that the head allows."
        ),
    ] = None,
    against: Annotated[str | None, typer.Option(help="Another class: explain the class rather than this one.")] = None,
    loss: Annotated[
        str | None, typer.Option(help="cross_entropy, logit or double_softmax, for methods with a loss.")
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(help="Token whose attention is explained, cls or ROW,COLUMN, for methods with queries."),
    ] = None,
    maps: given.Maps = None,
    contour: Annotated[
        bool, typer.Option("--contour", help="Draw contours at a quarter, half and three quarters of the maximum.")
    ] = False,
    animate: Annotated[bool, typer.Option("--animate", help="Write an animation over blocks as well.")] = False,
    format_: Annotated[str, typer.Option("--format", help="Format of animations: webp or gif.")] = "webp",
    skip_bad: SkipBad = False,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("classlens-explain"),
) -> None:
    """Show which parts of a photo speak for a class: overlays and numbers of one or several methods."""
    from classlens import __version__
    from classlens.explain.registry import (
        DEFAULT_METHODS,
        METHODS,
        default_method,
        find_method,
        is_defined,
        parse_method,
    )
    from classlens.lens.load import load
    from classlens.render.folders.explanation import Animation, explanation_json, write_explanations
    from classlens.render.folders.result_folder import EXPLANATION, check_replaceable, replacing
    from classlens.render.terminal.progress import progress_bar
    from classlens.tasks.evaluation.map_importance import given_maps, parse_maps

    check_replaceable(out, EXPLANATION)
    methods = tuple(METHODS) if method == "all" else DEFAULT_METHODS[:1] if method is None else listed(method)
    if not methods:
        raise ClasslensError(f"no method was given: give some of {', '.join(METHODS)}, or all")
    names = [parse_method(text)[0] for text in methods]
    query_token = None if query is None else _query(query)
    given_options = {"against": against, "loss": loss, "query": query_token}
    options: dict[str, Any] = {key: value for key, value in given_options.items() if value is not None}
    for option in options:
        if not any(option in find_method(name).options for name in names):
            fitting = ", ".join(name for name, record in METHODS.items() if option in record.options)
            raise ClasslensError(
                f"--{option} goes with {fitting}, not with {', '.join(methods)}: choose one of those with --method, or "
                "leave it out"
            )
        twice = next((text for text in methods if option in parse_method(text)[1]), None)
        if twice is not None:
            raise ClasslensError(f"--{option} was given, and method {twice!r} has a {option} of its own: leave one out")
    animation: Animation | None = "gif" if format_ == "gif" else "webp"
    if format_ != animation:
        raise ClasslensError(f"--format {format_!r} is not known: give webp or gif")
    if not animate:
        if format_ != "webp":
            raise ClasslensError(f"--format {format_} goes with --animate: give both, or leave it out")
        animation = None
    files = image_files(images)
    folders = parse_maps(maps or [])
    number = {file: index for index, file in enumerate(files)}
    skipped: dict[str, str] | None = {} if skip_bad else None
    if against is not None:
        _say_without_rival(dict.fromkeys(names))
    load_options = weights.load_options(model)
    with progress_bar("loading the model") as progress, replacing(out, EXPLANATION) as folder:
        lens = load(model, **load_options)
        if method is None:
            methods = (default_method(lens.view),)
        elif method == "all":
            methods = tuple(name for name in METHODS if is_defined(METHODS[name], lens.view))
        targets = targets_of(lens, class_)
        if against is not None:
            options["against"] = lens.classes.index(against)
        stored = given_maps(folders, relative_paths(images, files), lens.view.channels, skip_bad=skip_bad)
        records: list[dict[str, Any]] = []
        progress("explaining", 0, len(files))
        # The classes of one image follow each other.
        step = 1 if stored or len(targets) > 1 else _BATCH
        for batch, trace in traces_of(lens, files, step, skipped):
            image = number[batch[0]]
            without = next((each.without[image] for each in stored if image in each.without), None)
            if without is not None and skipped is not None:
                skipped[batch[0]] = without
                continue
            functions = [each.function(image, lens.view.channels) for each in stored]
            for target in targets:
                records += write_explanations(
                    trace,
                    target,
                    [*methods, *functions],
                    folder,
                    photos=batch,
                    first=len(records) + 1,
                    contour=contour,
                    animate=animation,
                    **options,
                )
            progress("explaining", len(records) // len(targets), len(files))
        if skipped and not records:
            raise ClasslensError(f"no image could be explained; the first: {next(iter(skipped.values()))}")
        text = explanation_json(
            records,
            lens,
            checkpoint=None if weights.checkpoint is None else str(weights.checkpoint),
            version=__version__,
        )
        (folder / "explain.json").write_text(text, encoding="utf-8")
    for position, record in enumerate(records, start=1):
        say(f"{record['name']}: {record['target']}: {out / f'{position:02d}-methods.png'}")
    for line in skipped_lines(skipped):
        say(line)


def _say_without_rival(names: Iterable[str]) -> None:
    """Notes before the run which methods do not compare two classes."""
    from classlens.explain.registry import find_method, short_name

    for name in names:
        method = find_method(name)
        if "against" not in method.options:
            reason = "explains the class alone" if method.of_class else "is the same for every class"
            typer.echo(f"Note: method {short_name(name)!r} {reason}; --against does not change it.", err=True)


def _query(text: str) -> str | int | tuple[int, int]:
    """A prefix token's name, a position, or ``(row, column)``, from the text of ``--query``."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 1:
        return int(text) if text.isdecimal() else text
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise ClasslensError(
            f"--query {text!r} is no token: give the name of a prefix token, such as cls, or ROW,COLUMN"
        )
    return int(parts[0]), int(parts[1])
