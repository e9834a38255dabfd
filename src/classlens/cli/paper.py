"""`classlens paper`: the paper's experiments on the paper's models, in one go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from classlens.cli import options as given
from classlens.cli.app import app, listed, reporting
from classlens.errors import ClasslensError
from classlens.text import say


@app.command()
@reporting
def paper(
    data: Annotated[
        list[str],
        typer.Option(
            help="As for measure; may be repeated. A model takes the first data set with classes that it has."
        ),
    ],
    models: Annotated[str, typer.Option(help="With commas; or all, those of the paper.")] = "all",
    out: Annotated[Path, typer.Option(help="Folder for stores, analysis and page.")] = Path("classlens-paper"),
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="MODEL=FILE: weights of a model; may be repeated.")
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option(help="MODEL=FILE: class names of a model, as for measure; may be repeated.")
    ] = None,
    per_class: Annotated[int, typer.Option(min=1, help="Number of images of each class.")] = 5,
    split: given.Split = None,
    masks: Annotated[
        list[str] | None,
        typer.Option(help="Folder of masks, as for measure; for several data sets one each, or none, in order."),
    ] = None,
    mask_values: given.MaskValues = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Number of processes that decode images.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Record and skip unreadable images and masks.")] = False,
    removal: Annotated[
        bool, typer.Option("--removal", help="Also token removal, for models with published areas.")
    ] = False,
    ranks: Annotated[
        list[str] | None,
        typer.Option(help="MODEL=STORE: store of `classlens probe` on these images, for --removal; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed for the random twin, permutation tests and bootstrap.")] = 0,
    permutations: Annotated[int, typer.Option(help="Number of permutations of each test.")] = 10_000,
    resamples: given.Resamples = 2_000,
) -> None:
    """Measure, analyze and draw in one go, and set each published value beside the measured one.

    Run again to continue after a stop. A model that cannot be measured is listed on the page, and the exit code is 2.
    """
    from classlens import __version__
    from classlens.analysis.paper import reproduce
    from classlens.core.stats import Statistics
    from classlens.render.folders.analysis import write_analysis
    from classlens.render.folders.figures import figures
    from classlens.render.folders.result_folder import ANALYSIS, check_replaceable
    from classlens.render.html.paper import write_paper
    from classlens.render.terminal.progress import progress_bar

    checkpoints = {model: Path(file) for model, file in _pairs("--checkpoint", "FILE", checkpoint or [])}
    class_names = {model: Path(file) for model, file in _pairs("--classes", "FILE", classes or [])}
    ranks_of_models = dict(_pairs("--ranks", "STORE", ranks or []))
    analysis_folder = out / "analysis"
    check_replaceable(analysis_folder, ANALYSIS)
    with progress_bar("loading the model") as update:
        reproduction = reproduce(
            data,
            "all" if models == "all" else listed(models),
            out / "stores",
            checkpoints=checkpoints,
            class_names=class_names,
            per_class=per_class,
            split=split,
            masks=[None if folder == "none" else folder for folder in masks or []],
            mask_values=mask_values,
            removal=removal,
            ranks=ranks_of_models,
            statistics=Statistics(seed, permutations, resamples),
            report=lambda model, progress: update(f"measuring {model}", progress.done, progress.images),
            report_analysis=lambda model, done, images: update(f"analyzing {model}", done, images),
            device=device,
            workers=workers,
            skip_bad=skip_bad,
            seed=seed,
        )
        write_analysis(reproduction.analysis, analysis_folder, version=__version__)
        figures(analysis_folder, report=lambda done, tables: update("drawing", done, tables))
        page = out / "paper.html"
        write_paper(
            reproduction.analysis,
            analysis_folder / "figures",
            page,
            version=__version__,
            problems=reproduction.problems,
            removal=reproduction.removal,
        )
    say(f"Summary: {analysis_folder / 'summary.md'}")
    say(f"Page: {page}")
    if reproduction.problems:
        reasons = "; ".join(f"{model}: {reason}" for model, reason in reproduction.problems.items())
        raise ClasslensError(
            f"{len(reproduction.problems)} of the models could not be measured, the others were: {reasons}"
        )


def _pairs(option: str, value: str, texts: list[str]) -> Iterator[tuple[str, str]]:
    """Model and value of each ``MODEL=VALUE``."""
    for text in texts:
        model, equals, path = text.rpartition("=")
        if not (model and equals and path):
            raise ClasslensError(f"{option} {text!r} is no MODEL={value}: give the model's name, = and a path")
        yield model, path
