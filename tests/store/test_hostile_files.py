"""Probe folders, tuned lenses, heads and tables of others: used as they are, or refused in one sentence."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import classlens
from classlens import ClasslensError
from classlens.analysis.registry import EXPERIMENTS
from classlens.core.probes import LinearProbes
from classlens.lens.tuned_lens import TunedLens
from classlens.models.digest import weights_digest
from classlens.render.folders.analysis import read_table
from classlens.store.probe_folder import ProbeFolder, ProbeTokens
from tests import zoo
from tests.refusals import unchecked
from tests.store.hostile import VALUES, change_kind, limited

SEED = 20261126
LENS = classlens.load(zoo.build("cls"))
WIDTH, CLASSES = 24, 11


def make(folder: Path) -> Path:
    """A folder with one file of each kind."""
    torch.manual_seed(0)
    probes = ProbeFolder(folder / "probe")
    record = {"weights": weights_digest(LENS.view), "model": "tiny", "sites": ["attn_out"], "tokens": [0, 5]}
    probes.begin(record)
    for block in range(3):
        linear = LinearProbes(torch.randn(5, WIDTH, CLASSES), torch.randn(5, CLASSES))
        probes.write(ProbeTokens("attn_out", block, 0, 5), linear, torch.ones(5))
    TunedLens.identity(LENS.view).save(folder / "lens.safetensors", LENS.view)
    save_file({"weight": torch.randn(CLASSES, WIDTH), "bias": torch.randn(CLASSES)}, folder / "head.safetensors")
    rows = [("vit", "clean", "image", block, 0.2 + 0.1 * block) for block in range(4)]
    table = pd.DataFrame(rows, columns=["model", "condition", "tokens", "block", "value"])
    table.to_parquet(folder / "change_rate.parquet")
    table.to_csv(folder / "change_rate.csv")
    return folder


def read_probes(folder: Path) -> None:
    probes = ProbeFolder(folder / "probe")
    probes.check(LENS.view)
    for block in range(3):
        for linear in probes.probes("attn_out", block):
            assert torch.isfinite(linear.bias).all()


READERS: dict[str, Callable[[Path], object]] = {
    "probe": read_probes,
    "lens.safetensors": lambda folder: LENS.with_tuned_lens(folder / "lens.safetensors"),
    "head.safetensors": lambda folder: classlens.load(zoo.build("cls"), head=folder / "head.safetensors"),
    "change_rate.parquet": lambda folder: read_table(folder / "change_rate.parquet", EXPERIMENTS["change_rate"]),
    "change_rate.csv": lambda folder: read_table(folder / "change_rate.csv", EXPERIMENTS["change_rate"]),
}


def mutate(path: Path, moments: random.Random) -> str:
    """One random change of a file; returns what was done."""
    data = path.read_bytes()
    kinds = ["cut", "flipped", "random bytes", "empty", "other kind", *(["header"] * 6)]
    kind = moments.choice(kinds if path.suffix == ".safetensors" else kinds[:5])
    if kind == "other kind":
        return change_kind(path, moments)
    if kind == "header":
        size = int.from_bytes(data[:8], "little")
        header: Any = json.loads(data[8 : 8 + size])
        places = [(header, name) for name in header]
        places += [(header[name], key) for name in header for key in (header[name] if name != "__metadata__" else ())]
        parent, key = moments.choice(places)
        parent[key] = moments.choice((*VALUES, "BF16", "I64", "BOOL", "F64", "F16", [0, 10**15], [2**40, 2**40]))
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
        return f"header: {key!r} is {parent[key]!r}"
    if kind == "flipped":
        changed = bytearray(data)
        changed[moments.randrange(min(len(data), 400))] ^= 1 << moments.randrange(8)
        data = bytes(changed)
    elif kind == "random bytes":
        data = moments.randbytes(moments.randrange(1, 300))
    else:
        data = b"" if kind == "empty" else data[: moments.randrange(len(data))]
    path.write_bytes(data)
    return kind


@pytest.mark.parametrize("name", READERS)
def test_random_changes_of_other_files(name: str, tmp_path: Path) -> None:
    whole, other = make(tmp_path / "whole"), []
    moments = random.Random(f"{SEED} {name}")
    READERS[name](whole)
    for number in range(40):
        folder = Path(shutil.copytree(whole, tmp_path / f"{number}"))
        files = sorted((folder / name).iterdir()) if name == "probe" else [folder / name]
        path = moments.choice(files)
        done = mutate(path, moments)
        try:
            with limited(20), unchecked():
                READERS[name](folder)
        except ClasslensError as error:
            if "\n" in str(error):
                other.append((path.name, done, str(error)))
        except BaseException as error:
            other.append((path.name, done, repr(error)))
    assert not other, json.dumps(other[:5], indent=1)
