"""How far a long run is, for people (a bar) and for machines (JSON lines)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from classlens.engine.progress import MeasureResult, Progress

Report = Callable[[Progress], None]
Finished = Callable[[MeasureResult], None]


@contextmanager
def watched(lines: TextIO | None, store: str) -> Iterator[tuple[Report, Finished]]:
    """Functions to call with each ``Progress`` and the ``MeasureResult``: a bar on stderr, or JSON lines in ``lines``.

    After an interrupt one line tells what is saved, and how to go on.
    """
    with _logged(lines) if lines is not None else _shown(store) as reports:
        yield reports


@contextmanager
def watched_steps(lines: TextIO | None, store: str) -> Iterator[Report]:
    """``watched`` for what ends in another way than with an ``MeasureResult``."""
    with watched(lines, store) as (report, _):
        yield report


@contextmanager
def _logged(lines: TextIO) -> Iterator[tuple[Report, Finished]]:
    def say(event: str, **values: object) -> None:
        print(json.dumps({"event": event, "time": round(time.time(), 3), **values}), file=lines, flush=True)

    def report(now: Progress) -> None:
        say("progress", **asdict(now), images_per_second=round(now.rate, 3), remaining_seconds=_remaining(now))

    yield report, lambda outcome: say("finished", **asdict(outcome))


@contextmanager
def _shown(store: str) -> Iterator[tuple[Report, Finished]]:
    terminal = Console(stderr=True, highlight=False, emoji=False)
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        console=terminal,
        transient=True,
        disable=not terminal.is_terminal,  # else it ends with an empty line
    )
    last: Progress | None = None
    task = bar.add_task("loading the model", total=None, speed="")

    def report(now: Progress) -> None:
        nonlocal last
        last = now
        bar.update(task, description=now.doing, total=now.images, completed=now.done, speed=speed(now))

    def finished(outcome: MeasureResult) -> None:
        bar.stop()
        console = Console(highlight=False, emoji=False, soft_wrap=True)
        new = outcome.images - outcome.before
        rate = f", {new / outcome.seconds:.1f} images/s" if new and outcome.seconds else ""
        before = f" ({outcome.before} were there before)" if outcome.before else ""
        note = f" ({outcome.note})" if outcome.note else ""
        console.print(f"Measured {new} images{note} in {outcome.seconds:.1f} s{rate}{before}.", markup=False)
        for name, reason in list(outcome.skipped.items())[:5]:
            console.print(f"Skipped {name}: {reason}", markup=False)
        if len(outcome.skipped) > 5:
            console.print(f"… and {len(outcome.skipped) - 5} more, all in the variable `problem`.", markup=False)
        console.print(f"Store: {outcome.store}", markup=False)

    try:
        with bar:
            yield report, finished
    except KeyboardInterrupt:
        if last is not None:
            saved = (
                f"{last.done} of {last.images} images are" if last.doing == Progress.doing else "What is finished is"
            )
            print(f"{saved} saved in {store}; the same command goes on there.", file=sys.stderr)
        raise


def speed(now: Progress) -> str:
    """Images a second and the time that remains, such as ``12.3 images/s, 1:02:03 left``."""
    remaining = _remaining(now)
    if remaining is None:
        return ""
    minutes, seconds = divmod(round(remaining), 60)
    hours, minutes = divmod(minutes, 60)
    left = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f"{now.rate:.1f} images/s, {left} left"


def _remaining(now: Progress) -> float | None:
    return round((now.images - now.done) / now.rate, 1) if now.rate > 0 else None
