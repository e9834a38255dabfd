"""Progress of a run: a bar for people, JSON lines for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from io import TextIOBase
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from classlens.text import say

if TYPE_CHECKING:
    from classlens.engine.progress import MeasureResult, Progress

    Report = Callable[[Progress], None]
    Finished = Callable[[MeasureResult], None]


_CLASSES = 10
"""Classes that an outcome names."""


@contextmanager
def progress_bar(text: str) -> Iterator[Callable[..., None]]:
    """A bar on stderr during the body, moved by ``update(text, done, total, note="")``; none without a terminal."""
    terminal = Console(stderr=True, highlight=False, emoji=False)
    bar = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=terminal,
        transient=True,
        disable=not terminal.is_terminal,  # a bar that is not shown would end with an empty line
    )
    with bar:
        task = bar.add_task(text, total=None, note="")

        def update(text: str, done: int, total: int, note: str = "") -> None:
            bar.update(task, description=text, completed=done, total=total, note=note)

        yield update


@contextmanager
def watched(
    lines: TextIO | TextIOBase | None, store: str, kept: Callable[[], bool] | None = None
) -> Iterator[tuple[Report, Finished]]:
    """Functions to call with each ``Progress`` and the ``MeasureResult``: a bar on stderr, or JSON lines in ``lines``.

    After an interrupt one line says what is saved, and how to continue. ``kept`` tells whether anything lies in
    ``store``, for a run that does not save image by image.
    """
    with _json_lines(lines) if lines is not None else _bar_and_outcome(store, kept) as reports:
        yield reports


@contextmanager
def _json_lines(lines: TextIO | TextIOBase) -> Iterator[tuple[Report, Finished]]:
    def write(event: str, **values: object) -> None:
        print(json.dumps({"event": event, "time": round(time.time(), 3), **values}), file=lines, flush=True)

    def report(progress: Progress) -> None:
        rate = round(progress.rate, 3)
        write("progress", **asdict(progress), images_per_second=rate, remaining_seconds=_rounded(progress.remaining))

    yield report, lambda outcome: write("finished", **asdict(outcome))


@contextmanager
def _bar_and_outcome(store: str, kept: Callable[[], bool] | None) -> Iterator[tuple[Report, Finished]]:
    last: Progress | None = None
    estimated = False
    outcomes: list[MeasureResult] = []
    try:
        with progress_bar("loading the model") as update:

            def report(progress: Progress) -> None:
                nonlocal last, estimated
                last = progress
                if not estimated and (whole := _whole_cost(progress)):
                    estimated = True
                    say(whole, stderr=True)
                update(progress.doing, progress.done + progress.under_way, progress.images, speed(progress))

            yield report, outcomes.append
    except KeyboardInterrupt:
        if last is not None:
            saved = f"{last.done} of {last.images} images are" if kept is None else "What is finished is"
            nothing = kept is not None and not kept()
            note = "Nothing is saved yet." if nothing else f"{saved} saved in {store}; the same command goes on there."
            say(note, stderr=True)
        raise
    for outcome in outcomes:
        _print_outcome(outcome)


def _print_outcome(outcome: MeasureResult) -> None:
    new = outcome.images - outcome.before
    rate = f", {new / outcome.seconds:.1f} images/s" if new and outcome.seconds else ""
    before = f" ({outcome.before} were measured before)" if outcome.before else ""
    note = f" ({outcome.note})" if outcome.note else ""
    say(f"Measured {new} images{note} in {outcome.seconds:.1f} s{rate}{before}.")
    for line in _images(outcome):
        say(line)
    for name, reason in list(outcome.skipped.items())[:5]:
        say(f"Skipped {name}: {reason}")
    if len(outcome.skipped) > 5:
        say(f"… and {len(outcome.skipped) - 5} more, all in the variable `problem`.")
    say(f"Store: {outcome.store}")


def _images(outcome: MeasureResult) -> Iterator[str]:
    """Numbers of images of each class, and of images without a label."""
    counts = outcome.classes
    if counts:
        shown = list(counts)[:_CLASSES]
        more = f" and {len(counts) - _CLASSES:,} more" if len(counts) > _CLASSES else ""
        least, most = min(counts.values()), max(counts.values())
        if least == most:
            each = "1 image" if most == 1 else f"{most:,} images"
            yield f"Classes: {each} of each of {len(counts):,} ({', '.join(shown)}{more})."
        else:
            of_each = f"{least:,} to {most:,} images of each of {len(counts):,}"
            yield f"Classes: {of_each} ({', '.join(f'{name} {counts[name]:,}' for name in shown)}{more})."
    if outcome.unlabeled:
        some = "1 image has" if outcome.unlabeled == 1 else f"{outcome.unlabeled:,} images have"
        those = f"{some} no label" if counts else "The images have no labels"
        yield f"{those}: the class of interest is the one that the model predicts."
    if outcome.unmasked:
        some = "1 image was" if outcome.unmasked == 1 else f"{outcome.unmasked:,} images were"
        yield f"{some} measured without a mask: what needs masks leaves them out."


def _whole_cost(progress: Progress) -> str | None:
    """A first estimate for a run of a minute or more; None as long as there is none."""
    if progress.remaining is None or progress.doing == "running the model":
        return None
    minutes = (progress.seconds + progress.remaining) / 60
    at_most = "at most " if progress.doing.startswith("epoch") else ""
    duration = f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
    return f"This takes {at_most}about {duration}." if minutes >= 1 else None


def speed(progress: Progress) -> str:
    """Images a second and the time that remains, such as ``12.3 images/s, 1:02:03 left``."""
    if progress.remaining is None:
        return ""
    rate = f"{progress.rate:.1f} images/s" if progress.rate >= 1 else f"{1 / progress.rate:.1f} s/image"
    return f"{rate}, {_clock(progress.remaining)} left"


def _clock(duration: float) -> str:
    minutes, seconds = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
