"""Folders that training leaves: a model with its config, an adapter, or checkpoints of a run, of which one is taken."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from classlens.models.lora import is_adapter
from classlens.models.weight_files import WEIGHTS

CONFIG = "config.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def is_model_folder(folder: Path) -> bool:
    """Whether transformers or its Trainer wrote a folder: with a config, an adapter, or checkpoints with either."""
    return os.path.isdir(folder) and ((folder / CONFIG).is_file() or is_adapter(folder) or bool(_checkpoints(folder)))


def model_folder(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder that holds the model of a run, and what is said of the choice.

    The run's own final model where it was saved; else the best checkpoint where the Trainer recorded one, and else the
    last.
    """
    checkpoints = _checkpoints(folder)
    if not checkpoints or is_adapter(folder) or any((folder / name).is_file() for name in WEIGHTS):
        return folder, ()
    *others, last = checkpoints
    state = read_json(last / "trainer_state.json")
    best = Path(str(state.get("best_model_checkpoint") or "").replace("\\", "/")).name
    taken = next((checkpoint for checkpoint in checkpoints if checkpoint.name == best), last)
    metric = state.get("best_metric")
    value = f" ({metric:.4g})" if isinstance(metric, int | float) else ""
    why = "the last" if taken.name != best else f"the best{value}"
    of = f" of {len(checkpoints)} checkpoints; give another one by its folder" if others else ", the only checkpoint"
    return taken, (f"{folder.name}: the model is that of {taken.name}{f', {why}' if others else ''}{of}",)


def read_json(file: Path) -> Mapping[str, Any]:
    """The object in a JSON file; empty where there is none."""
    try:
        content: object = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _checkpoints(folder: Path) -> list[Path]:
    """Folders such as ``checkpoint-500`` with a model, in the order of their steps."""
    steps = {
        int(match[1]): child
        for child in (folder.iterdir() if os.path.isdir(folder) else ())
        if (match := _CHECKPOINT.fullmatch(child.name)) and ((child / CONFIG).is_file() or is_adapter(child))
    }
    return [steps[step] for step in sorted(steps)]
