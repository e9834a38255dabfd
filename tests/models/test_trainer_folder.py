"""Folders of a Trainer's run: the final model, the best or the last checkpoint, and what is said of the choice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import classlens
from tests.models.test_transformers import NAMES, build, picture, processor

pytest.importorskip("transformers")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three checkpoints, each with weights of its own, as the Trainer writes them; names of classes in their config."""
    for step in (500, 1000, 30):
        checkpoint = tmp_path / "run" / f"checkpoint-{step}"
        save(checkpoint, step)
        (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}), encoding="utf-8")
    (tmp_path / "run" / "checkpoint-2000").mkdir()  # one that was never finished
    processor().save_pretrained(tmp_path / "run" / "checkpoint-1000")
    return tmp_path / "run"


def save(folder: Path, number: int) -> None:
    model = build()
    with torch.no_grad():
        model.classifier.bias.fill_(number)
    model.save_pretrained(folder)


def taken(run: Path, caplog: pytest.LogCaptureFixture) -> tuple[int, str]:
    """The step of the weights, and what is said."""
    caplog.clear()
    with caplog.at_level("WARNING", "classlens"):
        lens = classlens.load(run)
    assert lens.classes.names == tuple(NAMES)
    assert lens.view.space.bias is not None
    return int(lens.view.space.bias[0]), caplog.text


def test_the_last_checkpoint(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    step, said = taken(run, caplog)
    assert step == 1000, "in the order of numbers, not of letters"
    assert (
        "run: the model is that of checkpoint-1000, the last of 3 checkpoints; give another one by its folder" in said
    )
    assert classlens.load(run).trace(picture()).model_logits.shape == (1, 5), "with its image processor"
    assert taken(run / "checkpoint-30", caplog) == (30, "")


@pytest.mark.parametrize("elsewhere", ["/home/me/run/", "C:\\run\\", ""])
def test_the_best_checkpoint_where_the_run_recorded_it(
    elsewhere: str, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {"best_model_checkpoint": f"{elsewhere}checkpoint-500", "best_metric": 0.91234}
    (run / "checkpoint-1000" / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    step, said = taken(run, caplog)
    assert step == 500
    assert "that of checkpoint-500, the best (0.9123) of 3 checkpoints" in said


def test_a_best_checkpoint_that_is_gone(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = {"best_model_checkpoint": "run/checkpoint-700", "best_metric": 0.9}
    (run / "checkpoint-1000" / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    assert taken(run, caplog)[0] == 1000


def test_the_final_model_of_a_run(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(run, 7)
    assert taken(run, caplog) == (7, "")
