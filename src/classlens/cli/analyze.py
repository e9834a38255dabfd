"""`classlens analyze`, `figures` and `paper`: from stores to tables, to figures, and all of it in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from classlens import __version__
from classlens.cli.app import app, listed, reporting, waiting
from classlens.errors import ClasslensError


@app.command()
@reporting
def analyze(
    stores: Annotated[list[str], typer.Argument(metavar="STORE...", help="What `classlens measure` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for tables and summary.")] = Path("classlens-analysis"),
    experiments: Annotated[
        str | None, typer.Option(help="With commas, such as evolution,building; all if left out.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of permutations and resamples.")] = 0,
    permutations: Annotated[int, typer.Option(help="Of each permutation test.")] = 10_000,
    resamples: Annotated[int, typer.Option(help="Of each bootstrap interval.")] = 2_000,
    confidence: Annotated[float, typer.Option(help="Of intervals.")] = 0.95,
) -> None:
    """Turn stores into the paper's numbers: tidy tables with honest statistics, and a summary.

    Experiments: identifiability, evolution, mean_evolution, change_rate, class_vs_context, attention_edits,
    context_removal, building, composition, class_value_agreement, key_value_agreement, agreement_by_class,
    agreement_accuracy, compositionality, decoders.
    """
    from classlens.analysis.analyze import analyze as run
    from classlens.core.stats import Statistics
    from classlens.render.analysis import write_analysis
    from classlens.render.folder import ANALYSIS, check_replaceable

    check_replaceable(out, ANALYSIS)
    with waiting("opening the stores") as progress:
        found = run(
            stores,
            experiments=None if experiments is None else listed(experiments),
            statistics=Statistics(seed, permutations, resamples, confidence),
            report=lambda model, done, images: progress(f"reading {model}", done, images),
        )
        write_analysis(found, out, version=__version__)
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    for one in found.missing:
        part = "not measured" if one.whole else "in part not measured"
        console.print(f"{one.model}, {one.experiment}: {part}: {one.reason}", markup=False)
    console.print(f"Tables: {out / 'tables'}", markup=False)
    console.print(f"Summary: {out / 'summary.md'}", markup=False)
    console.print(f"Figures: classlens figures {out}", markup=False)


@app.command()
@reporting
def figures(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `classlens analyze` wrote.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the figures; DIR/figures if left out.")] = None,
    experiments: Annotated[str | None, typer.Option(help="With commas; all if left out.")] = None,
    formats: Annotated[str, typer.Option(help="With commas: png, svg.")] = "png,svg",
) -> None:
    """Draw the figures of an analysis, each from its table alone."""
    from classlens.render.analysis import write_figures

    with waiting("drawing") as progress:
        paths = write_figures(
            folder,
            experiments=None if experiments is None else listed(experiments),
            formats=listed(formats),
            out=out,
            report=lambda done, tables: progress("drawing", done, tables),
        )
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    for path in paths:
        console.print(str(path), markup=False)


@app.command()
@reporting
def paper(
    data: Annotated[
        list[str],
        typer.Option(help="As for measure; may be given again. A model takes the first whose classes it knows."),
    ],
    models: Annotated[str | None, typer.Option(help="With commas; the paper's seven if left out.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for stores, analysis and page.")] = Path("classlens-paper"),
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="MODEL=FILE: weights of a model; may be given again.")
    ] = None,
    per_class: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 5,
    split: Annotated[str | None, typer.Option(help="Of the data, such as validation.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode images.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Record and leave out unreadable images.")] = False,
    removal: Annotated[bool, typer.Option("--removal", help="Also token removal, where the paper has it.")] = False,
    seed: Annotated[int, typer.Option(help="Of the random twin, permutations and resamples.")] = 0,
    permutations: Annotated[int, typer.Option(help="Of each permutation test.")] = 10_000,
    resamples: Annotated[int, typer.Option(help="Of each bootstrap interval.")] = 2_000,
) -> None:
    """Measure, analyze and draw in one go, and set each published value beside the measured one.

    Run again to go on after a stop. A model that cannot be measured is told on the page, and the exit code is 2.
    """
    from classlens.analysis.paper import reproduce
    from classlens.core.stats import Statistics
    from classlens.render.analysis import write_analysis, write_figures
    from classlens.render.folder import ANALYSIS, check_replaceable
    from classlens.render.html.paper import write_paper

    weights = dict(_pair(one) for one in checkpoint or [])
    check_replaceable(out / "analysis", ANALYSIS)
    with waiting("loading the model") as progress:
        made = reproduce(
            data,
            None if models is None else listed(models),
            out / "stores",
            checkpoints=weights,
            per_class=per_class,
            split=split,
            statistics=Statistics(seed, permutations, resamples),
            report=lambda model, now: progress(f"measuring {model}", now.done, now.images),
            reading=lambda model, done, images: progress(f"reading {model}", done, images),
            device=device,
            workers=workers,
            skip_bad=skip_bad,
            seed=seed,
            removal=removal,
        )
        write_analysis(made.analysis, out / "analysis", version=__version__)
        write_figures(out / "analysis", report=lambda done, tables: progress("drawing", done, tables))
        page = out / "paper.html"
        write_paper(
            made.analysis,
            out / "analysis" / "figures",
            page,
            version=__version__,
            problems=made.problems,
            removal=made.removal,
        )
    console = Console(emoji=False, highlight=False, soft_wrap=True)
    console.print(f"Summary: {out / 'analysis' / 'summary.md'}", markup=False)
    console.print(f"Page: {page}", markup=False)
    if made.problems:
        told = "; ".join(f"{model}: {why}" for model, why in made.problems.items())
        raise ClasslensError(f"{len(made.problems)} of the models could not be measured, the others were: {told}")


def _pair(text: str) -> tuple[str, Path]:
    model, equals, file = text.rpartition("=")
    if not (model and equals and file):
        raise ClasslensError(f"checkpoint {text!r} is no MODEL=FILE: give the model's name, = and the file")
    return model, Path(file)
