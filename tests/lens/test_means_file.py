"""Files of means: what comes back, and files that are damaged or of another kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from classlens import Means, load_means
from classlens.lens.means_file import write_means
from classlens.models.view import Tokens
from tests.refusals import refused

TOKENS = Tokens(("cls",), (1, 2))


def drawn(by_class: bool = True) -> Means:
    shapes = {"attn_out.0": 4, "mlp_coefficients.0": 8}
    values = {key: torch.randn(3, width) for key, width in shapes.items()}
    plain = ("tiny", "0" * 64, "folder:é", 7, TOKENS, values)
    if not by_class:
        return Means(*plain)
    class_values = {key: torch.randn(2, 2, width) for key, width in shapes.items()}
    return Means(*plain, class_values, ("a", "b", "cß"), {0: 3, 2: 4})


@pytest.mark.parametrize("by_class", [False, True])
def test_what_is_written_comes_back(tmp_path: Path, by_class: bool) -> None:
    means, path = drawn(by_class), tmp_path / "means.safetensors"
    write_means(means, path, {"note": "mine"})
    found = load_means(path)
    for field, expected in vars(means).items():
        values: Any = getattr(found, field)
        if field in ("values", "class_values"):
            assert values.keys() == expected.keys()
            assert all(torch.equal(values[key], expected[key]) for key in values)
        else:
            assert values == expected
    with safe_open(path, framework="pt") as opened:
        about = opened.metadata()
    assert (about["classlens"], about["model"], about["weights"], about["note"]) == ("means", "tiny", "0" * 64, "mine")


def test_the_layout_of_the_file(tmp_path: Path) -> None:
    """As docs/edits.md describes it, read without classlens."""
    means, path = drawn(), tmp_path / "means.safetensors"
    write_means(means, path, {})
    with safe_open(path, framework="pt") as opened:
        assert torch.equal(opened.get_tensor("mlp_coefficients.0"), means.values["mlp_coefficients.0"])
        assert torch.equal(opened.get_tensor("by_class.attn_out.0"), means.class_values["attn_out.0"])
        about = json.loads(opened.metadata()["means"])
    assert about == {
        "data": "folder:é",
        "images": 7,
        "prefix": ["cls"],
        "grid": [1, 2],
        "class_names": ["a", "b", "cß"],
        "class_images": [[0, 3], [2, 4]],
    }


def changed(path: Path, change: Callable[[dict[str, Tensor], dict[str, str], dict[str, Any]], object]) -> None:
    """Write the file anew with other tensors, metadata or facts."""
    with safe_open(path, framework="pt") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        metadata = dict(opened.metadata())
    about = json.loads(metadata["means"])
    change(tensors, metadata, about)
    if "means" in metadata and metadata["means"] != "{":
        metadata["means"] = json.dumps(about)
    save_file(tensors, path, metadata)


CHANGES: dict[str, tuple[Callable[[Any, Any, Any], object], str]] = {
    "kind": (lambda _, metadata, __: metadata.update(classlens="tuned lens"), "holds no means of classlens"),
    "not finite": (lambda tensors, *_: tensors["attn_out.0"][0, 0].fill_(torch.inf), "not finite"),
    "whole numbers": (lambda tensors, *_: tensors.update({"attn_out.0": torch.ones(3, 4).int()}), "int32"),
    "tokens": (lambda tensors, *_: tensors.update({"attn_out.0": torch.ones(2, 4)}), "are damaged"),
    "dims": (lambda tensors, *_: tensors.update({"attn_out.0": torch.ones(3)}), "are damaged"),
    "no values": (lambda tensors, *_: tensors.clear(), "are damaged"),
    "no values by class": (lambda tensors, *_: tensors.pop("by_class.attn_out.0"), "are damaged"),
    "kinds": (lambda tensors, *_: tensors.update({"by_class.attn_out.0": torch.ones(2, 3, 4)}), "are damaged"),
    "classes": (lambda _, __, about: about.update(class_images=[[0, 1]]), "are damaged"),
    "unknown class": (lambda _, __, about: about.update(class_images=[[0, 1], [3, 1]]), "are damaged"),
    "grid": (lambda _, __, about: about.update(grid=[2, 2]), "are damaged"),
    "another grid": (lambda _, __, about: about.update(grid=3), "are damaged"),
    "no grid": (lambda _, __, about: about.pop("grid"), "are damaged"),
    "no facts": (lambda _, metadata, __: metadata.pop("means"), "are damaged"),
    "half the facts": (lambda _, metadata, __: metadata.update(means="{"), "are damaged"),
    "no model": (lambda _, metadata, __: metadata.pop("model"), "are damaged"),
    "text": (lambda _, __, about: about.update(images="many"), "are damaged"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_damaged_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "means.safetensors"
    write_means(drawn(), path, {})
    change, says = CHANGES[name]
    changed(path, change)
    refused(lambda: load_means(path), str(path), says)


def test_a_file_cut_off_anywhere(tmp_path: Path) -> None:
    path, cut = tmp_path / "means.safetensors", tmp_path / "cut.safetensors"
    write_means(drawn(), path, {})
    whole = path.read_bytes()
    for size in range(0, len(whole), 41):
        cut.write_bytes(whole[:size])
        refused(lambda: load_means(cut), "cannot be read", "`classlens means`")


def test_no_file(tmp_path: Path) -> None:
    refused(lambda: load_means(tmp_path / "none.safetensors"), "cannot be read")
    refused(lambda: load_means(tmp_path), "is not a regular file")
    assert load_means.__doc__
