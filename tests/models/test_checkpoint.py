"""Weights from files: nothing in them runs, and what does not fit is named."""

from __future__ import annotations

import argparse
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from classlens.errors import ClasslensError
from classlens.models.checkpoint import apply_state
from classlens.models.weight_search import read_state

HINT = "torch.save(torch.load(FILE, weights_only=False)"


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, (str(self.marker),))


def refusal(path: str | Path) -> str:
    """What is said about a file: one line, and nothing on the side."""
    with warnings.catch_warnings(), pytest.raises(ClasslensError) as caught:
        warnings.simplefilter("error")
        read_state(path)
    message = str(caught.value)
    assert message.startswith(f"checkpoint {str(path)!r} ")
    assert "\n" not in message
    assert caught.value.__context__ is None or caught.value.__suppress_context__, "the user sees one error"
    return message


def state() -> dict[str, Tensor]:
    return {"weight": torch.randn(30, 40), "bias": torch.randn(30)}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("key", [None, "state_dict", "model", "state_dict_ema", "model_ema"])
def test_wrappers_come_off(prefix: str, key: str | None, tmp_path: Path) -> None:
    names = state()
    saved: dict[str, Any] = {f"{prefix}{name}": value for name, value in names.items()}
    torch.save(saved if key is None else {"epoch": 7, key: saved}, tmp_path / "file.pth")
    assert_same(read_state(tmp_path / "file.pth"), names)


def test_averaged_weights_go_before_raw_ones(tmp_path: Path) -> None:
    raw, averaged = state(), state()
    torch.save({"state_dict": raw, "state_dict_ema": averaged}, tmp_path / "timm.pth")
    assert_same(read_state(tmp_path / "timm.pth"), averaged)
    torch.save({"model": raw, "model_ema": averaged}, tmp_path / "deit.pth")
    assert_same(read_state(tmp_path / "deit.pth"), averaged)


def test_safetensors_and_half_precision_come_as_they_are(tmp_path: Path) -> None:
    names = {name: value.half() for name, value in state().items()}
    save_file(names, tmp_path / "file.safetensors")
    found = read_state(str(tmp_path / "file.safetensors"))
    assert_same(found, names)
    assert {value.dtype for value in found.values()} == {torch.float16}


@pytest.mark.parametrize("as_zip", [True, False])
def test_the_settings_that_timm_writes_beside_weights_are_passed_over(as_zip: bool, tmp_path: Path) -> None:
    names = state()
    saved = {"state_dict": names, "args": argparse.Namespace(lr=0.1), "arch": "vit"}
    torch.save(saved, tmp_path / "file.pth", _use_new_zipfile_serialization=as_zip)
    assert_same(read_state(tmp_path / "file.pth"), names)


# Pickles that would run code


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("beside", [True, False])
def test_nothing_in_a_torch_file_runs(as_zip: bool, beside: bool, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "marker")
    saved = {"state_dict": state(), "extra": trap} if beside else {"state_dict": {**state(), "trap": trap}}
    torch.save(saved, tmp_path / "trap.pth", _use_new_zipfile_serialization=as_zip)
    assert HINT in refusal(tmp_path / "trap.pth")
    assert not trap.marker.exists()
    # The trap is a real one: opened without care, it snaps.
    torch.load(tmp_path / "trap.pth", weights_only=False)
    assert trap.marker.is_dir()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_in_a_bare_pickle_runs(protocol: int, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "marker")
    (tmp_path / "trap.pkl").write_bytes(pickle.dumps({"weight": trap}, protocol=protocol))
    assert HINT in refusal(tmp_path / "trap.pkl")
    assert not trap.marker.exists()


def test_nothing_runs_under_another_ending(tmp_path: Path) -> None:
    trap = Trap(tmp_path / "marker")
    torch.save({"weight": trap}, tmp_path / "trap.safetensors")
    refusal(tmp_path / "trap.safetensors")
    assert not trap.marker.exists()


def test_a_whole_module_is_a_pickle_too(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    assert HINT in refusal(tmp_path / "module.pth")


# Files that are not what they should be


def half_of(file: Path) -> bytes:
    data = file.read_bytes()
    return data[: len(data) // 2]


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_a_file_cut_short(kind: str, tmp_path: Path) -> None:
    file = tmp_path / ("file.safetensors" if kind == "safetensors" else "file.pth")
    if kind == "safetensors":
        save_file(state(), file)
    else:
        torch.save(state(), file, _use_new_zipfile_serialization=kind == "zip")
    file.write_bytes(half_of(file))
    assert "complete" in refusal(file)


OTHER_FILES = {
    "empty": b"",
    "text": b"Not Found\n",
    "long text": b"The quick brown fox jumps over the lazy dog.\n" * 50,
    "html": b"<!DOCTYPE html>\n<html><body>404</body></html>\n",
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "bytes": bytes(range(40, 256)) * 3,
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("content", OTHER_FILES)
def test_a_file_of_another_kind(content: str, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"file.{ending}"
    file.write_bytes(OTHER_FILES[content])
    message = refusal(file)
    assert "expected a whole .safetensors file or a torch state dict" in message
    assert HINT not in message, "no advice to unpickle what is no pickle"


def test_a_zip_archive_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "file.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert HINT not in refusal(tmp_path / "file.pth")


def test_no_file(tmp_path: Path) -> None:
    assert "is not a file" in refusal(tmp_path / "missing.pth")
    assert "is a folder with no weights" in refusal(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        torch.zeros(3),
        [torch.zeros(3)],
        3,
        {"state_dict": {"weight": [1.0, 2.0]}},
        {0: torch.zeros(3)},
        {"state_dict": {}},
    ],
)
def test_a_torch_file_without_a_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pth")
    assert "holds no state dict" in refusal(tmp_path / "file.pth")


# Into the model


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def test_a_state_that_fits() -> None:
    source, target = model(), model()
    apply_state(target, source.state_dict(), "file.pth")
    assert_same(target.state_dict(), source.state_dict())


def test_counters_of_batches_need_not_be_there() -> None:
    source, target = model(), model()
    kept = {name: value for name, value in source.state_dict().items() if not name.endswith("num_batches_tracked")}
    apply_state(target, kept, "file.pth")
    assert_same(target.state_dict(), source.state_dict())


def without(*names: str) -> dict[str, Tensor]:
    return {name: value for name, value in model().state_dict().items() if name not in names}


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (without("0.bias"), ["1 keys of the model are missing, first '0.bias'"]),
        (without("2.bias", "0.bias", "1.bias"), ["3 keys of the model are missing, first '0.bias'"]),
        ({**without(), "x": torch.zeros(1), "y": torch.zeros(1)}, ["2 keys are unexpected, first 'x'"]),
        ({**without("2.weight"), "x": torch.zeros(1)}, ["first '2.weight'", "1 keys are unexpected, first 'x'"]),
        ({**without(), "2.weight": torch.zeros(5, 3)}, ["'2.weight'", "[5, 3]", "[2, 3]"]),
        # The first in the order of the model, whatever the order of the file.
        (
            {"2.bias": torch.zeros(9), "0.bias": torch.zeros(8), **without("0.bias", "2.bias")},
            ["'0.bias'", "[8]", "[3]"],
        ),
    ],
)
def test_a_state_that_does_not_fit_is_explained_and_leaves_the_model_alone(
    given: dict[str, Tensor], parts: list[str]
) -> None:
    target = model()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    parameters = list(target.parameters())
    with pytest.raises(ClasslensError) as caught:
        apply_state(target, given, "file.pth")
    message = str(caught.value)
    assert message.startswith("checkpoint 'file.pth' does not fit the model: ")
    assert "num_classes" in message
    assert "\n" not in message
    for part in parts:
        assert part in message
    assert_same(target.state_dict(), before)
    assert all(one is other for one, other in zip(target.parameters(), parameters, strict=True))


def test_names_of_another_project_are_converted_first() -> None:
    source, target = model(), model()
    foreign = {f"theirs.{name}": value for name, value in source.state_dict().items()}

    def convert(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
        assert module is target
        return {name.removeprefix("theirs."): value for name, value in state.items()}

    apply_state(target, foreign, "file.pth", convert)
    assert_same(target.state_dict(), source.state_dict())


def test_a_conversion_that_fails_leaves_it_to_the_keys() -> None:
    def convert(state: dict[str, Tensor], _: nn.Module) -> dict[str, Tensor]:
        raise KeyError("their.name")

    with pytest.raises(ClasslensError, match="first '0.weight'"):
        apply_state(model(), {"x": torch.zeros(1)}, "file.pth", convert)
