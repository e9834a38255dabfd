"""Weights in shards and folders: the tensors of the model that was saved, and nothing from outside of the folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import classlens
from classlens.models.checkpoint import read_tree
from tests.models.test_weight_search import NAME, OPTIONS, trained
from tests.models.tiny_torchvision import build as build_torchvision
from tests.refusals import refused

State = dict[str, Tensor]
INDEX = "model.safetensors.index.json"


def shard(state: State, folder: Path, ending: str = "safetensors", count: int = 3) -> Path:
    """Shards as transformers and accelerate write them, with an index."""
    stem = "model" if ending == "safetensors" else "pytorch_model"
    names = list(state)
    weight_map: dict[str, str] = {}
    for number in range(count):
        file = f"{stem}-{number + 1:05}-of-{count:05}.{ending}"
        part = {name: state[name].clone().contiguous() for name in names[number::count]}
        (save_file if ending == "safetensors" else torch.save)(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = folder / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}), encoding="utf-8")
    return index


def assert_loads(source: nn.Module, given: Path, name: str = NAME, **options: Any) -> None:
    lens = classlens.load(name, checkpoint=given, **options)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(lens.trace(pixels).model_logits.values), source(pixels))


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_shards_of_a_timm_model(ending: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = trained()
    index = shard({f"module.{name}": value for name, value in source.state_dict().items()}, tmp_path, ending)
    options = {**OPTIONS, "num_classes": None}
    with caplog.at_level("WARNING", "classlens"):
        assert_loads(source, tmp_path, **options)
    assert f"{tmp_path.name}: the weights are those of {index.name}" in caplog.text
    assert f"{index.name}: the weights are those under 'module'" in caplog.text
    assert_loads(source, index, **options)


def test_shards_of_a_torchvision_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = build_torchvision("plain").float()
    monkeypatch.setattr("classlens.models.torchvision._build", lambda *_: build_torchvision("plain").float())
    shard(source.state_dict(), tmp_path)
    assert_loads(source, tmp_path, "torchvision:vit_b_16")


def test_shards_that_accelerate_writes(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    source = trained()
    accelerate.Accelerator(cpu=True).save_model(source, tmp_path, max_shard_size="20KB")
    assert (tmp_path / INDEX).is_file()
    assert_loads(source, tmp_path, **{**OPTIONS, "num_classes": None})


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "model_best.pth.tar", "epoch=3.ckpt"])
def test_the_weights_of_a_folder(file: str, tmp_path: Path) -> None:
    """Beside a model, folders hold states of optimizers, schedulers and random numbers."""
    source = trained()
    if file.endswith("safetensors"):
        save_file(source.state_dict(), tmp_path / file)
    else:
        torch.save({"state_dict": source.state_dict(), "arch": "vit"}, tmp_path / file)
    (tmp_path / "random_states_0.pkl").write_bytes(b"")
    if file.startswith("model"):
        torch.save({"state_dict": {}}, tmp_path / "last.pth.tar")
    assert_loads(source, tmp_path, **{**OPTIONS, "num_classes": None})


def spoiled(change: Callable[[dict[str, str]], Any]) -> Callable[[Path], object]:
    def spoil(index: Path) -> None:
        content = json.loads(index.read_text(encoding="utf-8"))
        changed = change(content["weight_map"])
        index.write_text(json.dumps(content if changed is None else changed), encoding="utf-8")

    return spoil


SHARD = "model-00002-of-00003.safetensors"
OUTSIDE = ["no file beside it", "in its own folder"]
SPOILED: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "missing shard": (lambda index: (index.parent / SHARD).unlink(), [f"{SHARD!r} is missing", "3 shards"]),
    "above": (spoiled(lambda names: names.update(b="../b.safetensors")), ["'../b.safetensors'", *OUTSIDE]),
    "elsewhere": (spoiled(lambda names: names.update(b="/tmp/b.safetensors")), ["'/tmp/b.safetensors'", *OUTSIDE]),
    "of Windows": (spoiled(lambda names: names.update(b="..\\b.safetensors")), OUTSIDE),
    "a drive": (spoiled(lambda names: names.update(b="c:b.safetensors")), OUTSIDE),
    "the folder": (spoiled(lambda names: names.update(b="..")), OUTSIDE),
    "itself": (spoiled(lambda names: names.update(b=INDEX)), OUTSIDE),
    "a tensor too many": (spoiled(lambda names: names.update(b=SHARD)), ["lacks 'b'", "one and the same saving"]),
    "a tensor too few": (spoiled(lambda names: names.pop("w1") and None), ["holds 'w1' beside them"]),
    "no map": (spoiled(lambda _: {"weight_map": {}}), ["not an index of shards"]),
    "another map": (spoiled(lambda _: {"weight_map": {"w0": 1}}), ["not an index of shards"]),
    "a list": (spoiled(lambda _: []), ["not an index of shards"]),
    "no JSON": (lambda index: index.write_text("{", encoding="utf-8"), ["not an index of shards"]),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_shards_that_do_not_fit_their_index(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    for file in (tmp_path / "b.safetensors", folder / "c.safetensors"):
        save_file({"b": torch.ones(2)}, file)
    index = shard({f"w{number}": torch.randn(2, 2) for number in range(6)}, folder)
    assert len(read_tree(folder)) == 6
    spoil, parts = SPOILED[kind]
    spoil(index)
    refused(lambda: read_tree(folder), INDEX, *parts)


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ([], ["no weights", INDEX]),
        (["a.pth", "b.ckpt"], ["several files, such as 'a.pth' and 'b.ckpt'"]),
        (["zero_to_fp32.py", "a.pt"], ["distributed training", "python zero_to_fp32.py"]),
        (["pytorch_model_fsdp_0"], ["accelerate merge-weights"]),
    ],
)
def test_folders_without_the_weights_of_one_model(files: list[str], parts: list[str], tmp_path: Path) -> None:
    for file in files:
        (tmp_path / file).touch()
    refused(lambda: read_tree(tmp_path), "is a folder", *parts)
