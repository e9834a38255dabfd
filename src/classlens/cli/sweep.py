"""`classlens sweep`: what each part of a model does to its decision, between a clean and a corrupt image."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from classlens.cli import options as given
from classlens.cli.app import app, listed, reporting
from classlens.cli.images import image_files
from classlens.cli.options import ModelOptions, expand_options
from classlens.errors import ClasslensError
from classlens.text import say

if TYPE_CHECKING:
    from PIL.Image import Image

    from classlens.lens.lens import Lens
    from classlens.models.corruptions import Corruption
    from classlens.render.sweep_record import SweptPair


@app.command()
@reporting
@expand_options
def sweep(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="CLEAN... [CORRUPT]",
            help="Clean image files or folders, and last the corrupt image; clean ones alone with --corruption.",
        ),
    ],
    weights: ModelOptions,
    model: given.Model = "builtin:photos",
    corruption: Annotated[
        str | None, typer.Option(help="Make the corrupt images from the clean ones: blur, noise, mean_color or zero.")
    ] = None,
    amount: Annotated[
        float | None, typer.Option(help="Strength of --corruption: standard deviation of blur or noise.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of --corruption noise.")] = 0,
    pairs: Annotated[bool, typer.Option("--pairs", help="Images are pairs: clean, corrupt, clean, corrupt …")] = False,
    over: Annotated[str, typer.Option(help="Parts: sublayers, heads, tokens or units.")] = "heads",
    metric: Annotated[
        str | None,
        typer.Option(
            help="Measure of the decision: log_odds, logit_difference, logit, probability or rank. Left out: log_odds, "
            "logit where outputs are numbers, and logit_difference with --against."
        ),
    ] = None,
    class_: Annotated[
        str,
        typer.Option("--class", help="Class of interest: name or index; predicted is that of the clean image."),
    ] = "predicted",
    against: Annotated[
        str | None, typer.Option(help="Second class of logit_difference; predicted is that of the corrupt image.")
    ] = None,
    direction: Annotated[
        str, typer.Option(help="denoise: the corrupt image runs with clean parts; noise: the reverse.")
    ] = "denoise",
    site: Annotated[
        str | None, typer.Option(help="Site of tokens: resid_pre (default), attn_out, mlp_out or resid_post.")
    ] = None,
    blocks: Annotated[str, typer.Option(help="Blocks, separated by commas, such as 0,3,5; or all.")] = "all",
    approximate: Annotated[
        bool, typer.Option("--approximate", help="Estimate all parts at once, from gradients (attribution patching).")
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Number of gradients of --approximate between both images; 1 when left out."),
    ] = None,
    agreement: Annotated[
        bool,
        typer.Option("--agreement", help="Run the exact sweep too, and show its rank correlation with the estimates."),
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Variants of an image in one forward pass.")] = 32,
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("classlens-sweep"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show which parts of a model change its decision when they come from another image."""
    from classlens import __version__
    from classlens.core.sweep_metrics import SWEEP_METRICS
    from classlens.forward.sweep_parts import SWEEP_PARTS
    from classlens.lens.load import load
    from classlens.render.folders.result_folder import SWEEP, check_replaceable
    from classlens.render.folders.sweep import write_sweep
    from classlens.render.sweep_record import sweep_record
    from classlens.render.terminal.progress import progress_bar

    check_replaceable(out, SWEEP)
    if corruption is None and amount is not None:
        raise ClasslensError("--amount was given without --corruption: give both, or leave it out")
    # Names are looked up before a model is loaded, which can take minutes.
    SWEEP_PARTS.select(over)
    SWEEP_METRICS.select(metric or "all")
    _check_approximation(metric, steps, approximate=approximate, agreement=agreement)
    files = _pairs(images, _corruption(corruption, amount, seed), paired=pairs)
    chosen = _blocks(blocks)
    load_options = weights.load_options(model)
    stages = len(files) + 2
    with progress_bar("loading the model") as progress:
        lens = load(model, **load_options)
        target, rival = _class(lens, class_), None if against is None else _class(lens, against)
        options: dict[str, Any] = {
            "over": over,
            "metric": metric or _metric(lens, against),
            "target": target,
            "against": rival,
            "direction": direction,
            "site": site,
            "blocks": chosen,
            "approximate": approximate,
            "steps": steps or 1,
            "batch_size": batch_size,
        }
        pictures: list[tuple[Image, Image]] = []

        def swept() -> Iterator[SweptPair]:
            for number, (clean, corrupt) in enumerate(files, start=1):
                progress("running the model", number, stages)
                pair = _swept(lens, clean, corrupt, options, agreement=agreement)
                pictures.append((pair.clean.picture(0), pair.corrupt.picture(0)))
                yield pair

        checkpoint = None if weights.checkpoint is None else str(weights.checkpoint)
        record = sweep_record(lens, swept(), target, rival, checkpoint=checkpoint, version=__version__)
        progress("writing the report", stages - 1, stages)
        write_sweep(record, pictures, out)
    if as_json:
        json.dump({"out": str(out), **record}, sys.stdout, indent=1, allow_nan=False)
        print()
        return
    from rich.console import Console

    from classlens.render.terminal.sweep import tables

    console = Console(emoji=False)
    for table in tables(record):
        console.print(table, highlight=False)
    say(f"Report: {out / 'report.html'}")


def _swept(lens: Lens, clean: str, corrupt: str | Corruption, options: dict[str, Any], *, agreement: bool) -> SweptPair:
    """The traces of both images, for their pictures and predictions, the sweep, and the exact one for agreement."""
    from classlens.lens.images import prepare_images
    from classlens.render.sweep_record import SweptPair

    trace = lens.trace([clean])
    if isinstance(corrupt, str):
        other = lens.trace([corrupt])
    else:
        _, pixels = prepare_images([clean], lens.view, lens.preprocessing)
        other = lens.trace(corrupt(pixels))
    source = [corrupt] if isinstance(corrupt, str) else corrupt
    result = lens.sweep([clean], source, **options)
    exact = lens.sweep([clean], source, **{**options, "approximate": False, "steps": 1}) if agreement else None
    return SweptPair(trace, other, corrupt, result, exact)


def _check_approximation(metric: str | None, steps: int | None, *, approximate: bool, agreement: bool) -> None:
    """Raises ClasslensError for options of estimates without them, and for a metric that has no gradient."""
    from classlens.core.sweep_metrics import SWEEP_METRICS

    for name, present in (("--steps", steps is not None), ("--agreement", agreement)):
        if present and not approximate:
            raise ClasslensError(f"{name} was given without --approximate: give both, or leave it out")
    with_gradient = [name for name, found in SWEEP_METRICS.items() if found.differentiable]
    if approximate and metric in SWEEP_METRICS and metric not in with_gradient:
        raise ClasslensError(
            f"--metric {metric} was given with --approximate, but has no gradient: give one of "
            f"{', '.join(with_gradient)}, or leave --approximate out"
        )


def _pairs(images: Sequence[str], corruption: Corruption | None, *, paired: bool) -> list[tuple[str, str | Corruption]]:
    """Each clean image with its corrupt image, or with the corruption that makes it."""
    if corruption is not None:
        if paired:
            raise ClasslensError("--pairs and --corruption were both given: give one of them")
        return [(clean, corruption) for clean in image_files(images)]
    if paired:
        files = image_files(images)
        if len(files) % 2:
            raise ClasslensError(
                f"--pairs was given with {len(files)} images: give a corrupt image after each clean one"
            )
        return list(zip(files[::2], files[1::2], strict=True))
    *clean, corrupt = images
    if not clean:
        raise ClasslensError(
            f"image {corrupt!r} was given alone: give a corrupt image after it, or --corruption such as blur"
        )
    if os.path.isdir(corrupt):
        raise ClasslensError(
            f"the corrupt image {corrupt!r} is a folder: give one image file last, or clean and corrupt ones by turns "
            "with --pairs"
        )
    files = image_files([*clean, corrupt])
    return [(file, corrupt) for file in files[:-1]]


def _corruption(kind: str | None, amount: float | None, seed: int) -> Corruption | None:
    from classlens.models.corruptions import Corruption

    return None if kind is None else Corruption(kind, amount, seed)


def _class(lens: Lens, name: str) -> int | str:
    return name if name == "predicted" else lens.classes.index(name)


def _metric(lens: Lens, against: str | None) -> str:
    """The metric where none is given."""
    if against is not None:
        return "logit_difference"
    return "log_odds" if lens.view.exclusive or lens.view.multi_label else "logit"


def _blocks(text: str) -> Any:
    """Indices of blocks, or ``all``."""
    if text == "all":
        return text
    try:
        numbers = [int(part) for part in listed(text)]
    except ValueError:
        numbers = []
    if not numbers:
        raise ClasslensError(f"--blocks {text!r} is not understood: give whole numbers, such as 0,3,5, or all")
    return numbers
