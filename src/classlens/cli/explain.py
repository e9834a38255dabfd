"""`classlens explain`: maps of what speaks for a class, by one method or many."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from classlens import __version__
from classlens.cli import options as given
from classlens.cli.app import app, check_images, listed, loading, reporting
from classlens.errors import ClasslensError

_BATCH = 8


@app.command()
@reporting
def explain(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="One or more image files.")],
    model: Annotated[str, typer.Option(help="A model name, as for inspect.")] = "builtin:cifar10",
    class_: Annotated[str, typer.Option("--class", help="Class of interest: a name or an index.")] = "predicted",
    method: Annotated[
        str,
        typer.Option(
            help="With commas: class_gradient, attention, rollout, chefer, grad_cam, legrad, class_rank, "
            "logit_attribution, log_odds, random; options as class_gradient:loss=logit; or all."
        ),
    ] = "class_gradient",
    against: Annotated[
        str | None, typer.Option(help="Another class: why the one and not this (class_gradient).")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="cross_entropy, logit or double_softmax (class_gradient).")] = None,
    query: Annotated[
        str | None,
        typer.Option(help="Whose attention: cls, or ROW,COLUMN (class_gradient, attention, rollout, chefer)."),
    ] = None,
    contour: Annotated[bool, typer.Option("--contour", help="Contours at a quarter, half and three quarters.")] = False,
    animate: Annotated[bool, typer.Option("--animate", help="Also an animation over blocks.")] = False,
    format_: Annotated[str, typer.Option("--format", help="webp or gif (--animate).")] = "webp",
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("classlens-explain"),
    checkpoint: Annotated[Path | None, typer.Option(help="Weights: safetensors or state dict.")] = None,
    head: Annotated[Path | None, typer.Option(help="File of a linear head for a backbone of timm.")] = None,
    classes: Annotated[Path | None, typer.Option(help="File of class names: one a line, or JSON.")] = None,
    templates: Annotated[Path | None, typer.Option(help="File of prompts for an OpenCLIP model.")] = None,
    transform: Annotated[str | None, typer.Option(help='"paper" for the transform of the paper.')] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps.")] = None,
    dtype: given.Dtype = None,
) -> None:
    """Show which parts of a photo speak for a class: overlays of one method or many, and the numbers."""
    from classlens.explain.registry import METHODS, parse_method
    from classlens.lens.lens import load
    from classlens.render.folders.explanation import Animation, explanation_json, write_explanations
    from classlens.render.folders.result_folder import EXPLANATION, check_replaceable, replacing
    from classlens.render.terminal.progress import progress_bar

    check_replaceable(out, EXPLANATION)
    methods = tuple(METHODS) if method == "all" else listed(method)
    if not methods:
        raise ClasslensError(f"no method was given: give some of {', '.join(METHODS)}, or all")
    names = [parse_method(text)[0] for text in methods]
    wanted: dict[str, Any] = {"against": against, "loss": loss, "query": None if query is None else _query(query)}
    options = {key: value for key, value in wanted.items() if value is not None}
    for option in options:
        if not any(option in METHODS[name].options for name in names):
            takers = ", ".join(name for name, known in METHODS.items() if option in known.options)
            raise ClasslensError(f"--{option} goes with {takers}, not with {', '.join(methods)}: leave it out")
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
    check_images(images)
    with progress_bar("loading the model") as progress, replacing(out, EXPLANATION) as folder:
        lens = load(model, **loading(model, checkpoint, head, classes, templates, transform, device), dtype=dtype)
        target: int | str = class_ if class_ == "predicted" else lens.classes.index(class_)
        if against is not None:
            options["against"] = lens.classes.index(against)
        records: list[dict[str, Any]] = []
        for start in range(0, len(images), _BATCH):
            progress("explaining", start, len(images))
            some = images[start : start + _BATCH]
            trace = lens.trace(some, batch_size=_BATCH)
            records += write_explanations(
                trace,
                target,
                methods,
                folder,
                photos=some,
                first=start + 1,
                contour=contour,
                animate=animation,
                **options,
            )
        text = explanation_json(
            records, lens, checkpoint=None if checkpoint is None else str(checkpoint), version=__version__
        )
        (folder / "explain.json").write_text(text, encoding="utf-8")
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    for number, record in enumerate(records, start=1):
        console.print(f"{record['name']}: {record['target']}: {out / f'{number:02d}-methods.png'}", markup=False)


def _query(text: str) -> str | int | tuple[int, int]:
    """A token as it is typed."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 1:
        return int(text) if text.isdecimal() else text
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise ClasslensError(
            f"--query {text!r} is no token: give the name of a prefix token, such as cls, or ROW,COLUMN"
        )
    return int(parts[0]), int(parts[1])
