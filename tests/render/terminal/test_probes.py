"""Probes and tuned lenses in a terminal: tables that say what the stores hold."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from rich.table import Table

from classlens.engine.progress import MeasureResult, Progress
from classlens.lens.tuned_lens import TunedLens
from classlens.render.terminal.probes import accuracy_table, tuned_record, tuned_table
from classlens.render.terminal.progress import watched
from classlens.tasks.tuned_lens.tune import TuneResult
from tests.analysis.literal import site_index
from tests.analysis.stores import StoreSpec, write_store


def rows(table: Table) -> list[list[str]]:
    """What is printed, a row a block."""
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line for line in text.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_shares_with_the_class_on_top(tmp_path: Path) -> None:
    conditions = ("clean", "random_init", "tuned_lens", "probe", "probe_pooled")
    spec = StoreSpec(images=10, conditions=conditions, measured={"probe": [1] * 8 + [2, 0]})
    rank = np.random.default_rng(3).integers(0, 3, (10, 4, 3, 5)).astype(np.int16)
    rank[..., 0] = -1
    spec = StoreSpec(images=10, conditions=conditions, measured=spec.measured, facts={"probe_pooled": {"rank": rank}})
    written = write_store(tmp_path / "made.zarr", spec)
    table = accuracy_table(str(tmp_path / "made.zarr"))
    heads = [str(column.header) for column in table.columns]
    shown = ("clean", "tuned_lens", "probe")
    assert heads == [
        "block",
        *(f"{name}\n\\[CLS]" for name in shown),
        *(f"{name}\nimage tokens" for name in (*shown, "probe_pooled")),
    ]
    assert "resid_post" in str(table.title)
    found = rows(table)
    assert len(found) == spec.blocks
    for block, cells in enumerate(found):
        expected = [str(block)]
        for tokens, names in (([0], shown), ([1, 2, 3, 4], (*shown, "probe_pooled"))):
            for name in names:
                ranks = written[name]["rank"][:, site_index(spec, "resid_post"), block]
                images = range(8) if name == "probe" else range(10)
                hits = [int(ranks[image, token]) == 0 for image in images for token in tokens]
                expected.append(f"{100 * sum(hits) / len(hits):.1f} %")
        assert cells == expected


def test_the_last_site_that_was_probed(tmp_path: Path) -> None:
    write_store(
        tmp_path / "made.zarr", StoreSpec(conditions=("clean", "probe"), sites=("attn_out", "mlp_out"), embed=False)
    )
    assert "mlp_out" in str(accuracy_table(str(tmp_path / "made.zarr")).title)


def test_embeddings_alone(tmp_path: Path) -> None:
    spec = StoreSpec(conditions=("clean", "probe"), sites=(), memories=False)
    written = write_store(tmp_path / "made.zarr", spec)
    table = accuracy_table(str(tmp_path / "made.zarr"))
    assert "embed" in str(table.title)
    (cells,) = rows(table)
    ranks = written["probe"]["embed_rank"]
    assert cells[0] == "0"
    assert cells[2] == f"{100 * float((ranks[:, 0] == 0).mean()):.1f} %"
    assert cells[4] == f"{100 * float((ranks[:, 1:] == 0).mean()):.1f} %"


def tuned() -> TuneResult:
    blocks = [
        {"block": 0, "plain": 2.5, "tuned": 0.12345, "epoch": 7},
        {"block": 1, "plain": 0.0, "tuned": 0.0, "epoch": 0},
    ]
    lens = TunedLens(torch.eye(3).repeat(2, 1, 1), torch.zeros(2, 3))
    return TuneResult(Path("a.safetensors"), lens, blocks, 1.75, 9, 900, 100, 12.5)


def test_a_tuned_lens() -> None:
    table = tuned_table(tuned())
    assert "100 held-out images" in str(table.title)
    assert "1.750" in str(table.title)
    assert rows(table) == [["0", "2.500", "0.123", "7"], ["1", "0.000", "0.000", "0"]]
    record = json.loads(tuned_record(tuned()))
    assert record.pop("time") > 0
    assert record == {
        "event": "finished",
        "file": "a.safetensors",
        "blocks": tuned().blocks,
        "constant": 1.75,
        "epochs": 9,
        "images": 900,
        "held_out": 100,
        "seconds": 12.5,
    }


def test_lines_for_machines_say_what_is_being_done() -> None:
    lines = io.StringIO()
    with watched(lines, "a.safetensors") as (report, _):
        report(Progress(10, 40, 0, 0, 2.0, "epoch 1 of at most 4"))
    found = json.loads(lines.getvalue())
    assert (found["event"], found["doing"], found["done"]) == ("progress", "epoch 1 of at most 4", 10)


def test_the_bar_says_what_is_being_done(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with watched(None, "probes") as (report, finished):
        report(Progress(5, 40, 0, 0, 1.0, "pass 2 of 3"))
        report(Progress(30, 40, 0, 0, 2.0, "solving 1 of 9"))
        report(Progress(40, 40, 0, 0, 3.0))
        finished(MeasureResult("probes/probes.zarr", 10, 0, {}, 1.0, 16))
    text = shown.getvalue()
    assert "loading the model" in text
    assert "measuring" in text


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        (None, "5 of 40 images are saved in probes; the same command goes on there."),
        (lambda: True, "What is finished is saved in probes; the same command goes on there."),
        (lambda: False, "Nothing is saved yet."),
    ],
)
def test_an_interrupt_tells_what_is_saved(
    capsys: pytest.CaptureFixture[str], kept: Callable[[], bool] | None, says: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        with watched(None, "probes", kept) as (report, _):
            report(Progress(5, 40, 0, 0, 1.0))
            raise KeyboardInterrupt
    assert capsys.readouterr().err.splitlines()[-1] == says
    with pytest.raises(KeyboardInterrupt):
        with watched(None, "probes"):
            raise KeyboardInterrupt
    assert capsys.readouterr().err == ""
