"""Options that mean the same for several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Option(help="A model name, as for inspect.")]
Data = Annotated[
    str, typer.Option(help="folder:ROOT, list:FILE, imagenet-s:ROOT, cifar10:ROOT, cifar100:ROOT or hf:NAME.")
]
Split = Annotated[str | None, typer.Option(help="Of the data, such as validation.")]
PerClass = Annotated[int | None, typer.Option(help="Images of each class; the first in order of names.")]
Limit = Annotated[int | None, typer.Option(help="Images at most.")]
Shuffle = Annotated[bool, typer.Option("--shuffle", help="Draw --per-class and --limit with --seed.")]
BatchSize = Annotated[str, typer.Option(help="auto, 1 to 64, or a multiple of 64.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Processes that decode images.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Record and leave out unreadable images.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Weights: safetensors or state dict.")]
Head = Annotated[Path | None, typer.Option(help="File of a linear head for a backbone of timm.")]
Classes = Annotated[Path | None, typer.Option(help="File of class names: one a line, or JSON.")]
Templates = Annotated[Path | None, typer.Option(help="File of prompts for an OpenCLIP model.")]
Transform = Annotated[str | None, typer.Option(help='"paper" for the transform of the paper.')]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or mps.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or float64.")]
EngineName = Annotated[str, typer.Option("--engine", help="local or ray.")]
Address = Annotated[str | None, typer.Option(help="Ray cluster: auto or ray://HOST:10001.")]
Actors = Annotated[int | None, typer.Option(min=1, help="Copies of the model on the cluster.")]
Gpus = Annotated[float | None, typer.Option(min=0, help="GPUs of each copy, such as 0.5.")]
TunedLens = Annotated[Path | None, typer.Option(help="TuneResult lens that `classlens tune` wrote; condition tuned.")]
Memory = Annotated[str, typer.Option(help="Such as 8GB; the model itself comes on top.")]
LogJson = Annotated[bool, typer.Option("--log-json", help="Progress and outcome as JSON lines.")]
Resamples = Annotated[int, typer.Option(help="Of each bootstrap interval.")]
Confidence = Annotated[float, typer.Option(help="Of intervals.")]


def batch_size_of(text: str) -> int | str:
    """A number, or what else was given, for the check that says what is wrong with it."""
    return int(text) if text.isdecimal() else text
