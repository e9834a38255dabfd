"""Other files than state dicts are named, with one line that converts them; the lines work."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from classlens.models.checkpoint import read_tree
from tests.refusals import refused


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))


def numpy_archive(file: Path) -> None:
    with file.open("wb") as stream:
        values: dict[str, Any] = {name: value.numpy() for name, value in model().state_dict().items()}
        np.savez(stream, **values)


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "whole module": (lambda file: torch.save(model(), file), "whole pickled model of class 'torch.nn.modules"),
    "module of before 2020": (
        lambda file: torch.save(model(), file, _use_new_zipfile_serialization=False),
        "whole pickled model",
    ),
    "module beside others": (lambda file: torch.save({"epoch": 1, "model": model()}, file), "pickled Python objects"),
    "objects beside weights": (
        lambda file: torch.save({"hparams": pathlib.PurePosixPath("a"), "net": model().state_dict()}, file),
        "pickled Python objects",
    ),
    "TorchScript": (lambda file: torch.jit.script(model()).save(str(file)), "a TorchScript program"),
    "NumPy archive": (numpy_archive, "a NumPy archive"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", FILES)
def test_the_line_in_the_error_converts_the_file(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, words = FILES[kind]
    save(tmp_path / "file.pth")
    message = refused(lambda: read_tree(tmp_path / "file.pth"), "file.pth", words, "convert it once with")
    line = re.search(r"torch\.save\(.*\)(?= and give that file)", message)
    assert line is not None
    monkeypatch.chdir(tmp_path)
    exec(line[0], {"torch": torch, "numpy": np, "FILE": "file.pth"})  # as the user does
    converted = read_tree("weights.pth")
    assert converted.keys() == model().state_dict().keys()
    assert all(torch.equal(converted[name], value) for name, value in model().state_dict().items())


def test_jax_weights_go_through_timm(tmp_path: Path) -> None:
    values: dict[str, Any] = {"embedding/kernel": np.ones(3), "head/bias": np.ones(2)}
    np.savez(tmp_path / "vit.npz", **values)
    refused(lambda: read_tree(tmp_path / "vit.npz"), "JAX", "model.load_pretrained(FILE)")


@pytest.mark.parametrize(("name", "content"), [("model.onnx", b"\x08\x07"), ("weights.h5", b"\x89HDF\r\n\x1a\n")])
def test_files_of_other_frameworks(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    refused(lambda: read_tree(tmp_path / name), name, "torch.save(model.state_dict()")


class Trap:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("old", [False, True])
def test_looking_at_a_pickle_runs_nothing(old: bool, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "marker")
    content: dict[str, Tensor | Trap | list[Trap]] = {"model": trap, "all": [trap], "w": torch.ones(2)}
    torch.save(content, tmp_path / "file.pth", _use_new_zipfile_serialization=not old)
    refused(lambda: read_tree(tmp_path / "file.pth"), "could run code")
    assert not trap.marker.exists()
