"""`classlens reliability`: which predictions of a model to doubt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from classlens.cli import options
from classlens.cli.app import app, reporting
from classlens.cli.options import ModelOptions, expand_options
from classlens.errors import ClasslensError
from classlens.text import say

if TYPE_CHECKING:
    from PIL.Image import Image

    from classlens.analysis.reliability import ReliabilityResult
    from classlens.lens.trace import Trace


@app.command()
@reporting
@expand_options
def reliability(
    train: Annotated[str, typer.Option(help="Store of measure whose labels the scores of doubt learn.")],
    weights: ModelOptions,
    test: Annotated[
        str | None,
        typer.Option(help="Store of the same model and other images; half of those of --train if left out."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for tables, figure and summary.")] = Path("classlens-reliability"),
    reports: Annotated[
        int, typer.Option(min=0, help="Number of the most doubtful images to inspect: a page, linked by the summary.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Random seed of the bootstrap and of the halves.")] = 0,
    resamples: options.Resamples = 2_000,
    confidence: options.Confidence = 0.95,
) -> None:
    """Show which predictions to doubt: whether decisions after every block tell wrong from right, beside other scores.

    --reports loads the model and the images that the test store names; model options are those of `measure`.
    """
    from classlens import __version__
    from classlens.analysis.reliability import reliability as run
    from classlens.core.stats import Statistics
    from classlens.render.folders.reliability import write_reliability
    from classlens.render.folders.result_folder import RELIABILITY, check_replaceable
    from classlens.render.terminal.progress import progress_bar

    check_replaceable(out, RELIABILITY)
    with progress_bar("reading the stores") as progress:
        result = run(train, test, statistics=Statistics(seed, resamples=resamples, confidence=confidence))
        record: dict[str, Any] | None = None
        pictures: list[Image] = []
        if reports:
            record, pictures = _inspected(result, reports, weights, lambda done: progress("inspecting", done, reports))
        write_reliability(result, out, record=record, pictures=pictures, version=__version__)
    say(f"Summary: {out / 'summary.md'}")
    if record is not None:
        say(f"Report: {out / 'report.html'}")


def _inspected(
    result: ReliabilityResult, reports: int, weights: ModelOptions, progress: Any
) -> tuple[dict[str, Any], list[Image]]:
    """The inspection record and the pictures of the most doubtful images, in their order."""
    from classlens import __version__
    from classlens.data.open_dataset import open_dataset
    from classlens.lens.load import load
    from classlens.models.digest import weights_digest
    from classlens.render.inspection_record import inspection

    model, data = str(result.test["name"]), str(result.test["data"])
    dataset = open_dataset(data, split=result.test["split"])
    lens = load(model, **weights.load_options(model))
    if weights_digest(lens.view) != result.test["weights"]:
        raise ClasslensError(
            f"model {model!r} has other weights than the store {result.test['store']!r}: give the options that it "
            "was measured with, such as --checkpoint or --multi-label"
        )
    places = {name: place for place, name in enumerate(dataset.names)}
    names = [str(name) for name in result.images["image"].head(reports)]
    missing = next((name for name in names if name not in places), None)
    if missing is not None:
        raise ClasslensError(
            f"data {data!r} has no image {missing!r}, which the store has: give the data back as it was"
        )
    pictures: list[Image] = []

    def traces() -> Iterator[Trace]:
        for done, name in enumerate(names):
            progress(done)
            picture = dataset.picture(places[name])
            picture.filename = name  # type: ignore[attr-defined]
            trace = lens.trace([picture])
            pictures.append(trace.picture(0))
            yield trace

    return inspection(lens, traces(), version=__version__), pictures
