"""Trained probes on disk."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import classlens
from classlens.core.probes import LinearProbes
from classlens.models.digest import weights_digest
from classlens.store import probe_folder as probe_folder_module
from classlens.store.probe_folder import ProbeFolder, ProbeTokens
from tests import zoo
from tests.refusals import refused

VIEW = classlens.load(zoo.build("cls")).view
WIDTH, CLASSES = 24, 11
TOKENS = [ProbeTokens("attn_out", block, 0, 5) for block in range(3)]


def probes(count: int) -> LinearProbes:
    return LinearProbes(torch.randn(count, WIDTH, CLASSES), torch.randn(count, CLASSES))


def record(**settings: Any) -> dict[str, Any]:
    return {"weights": weights_digest(VIEW), "model": "tiny", "sites": ["attn_out"], "tokens": [0, 5], **settings}


def written(
    folder: Path, trained: list[ProbeTokens], **settings: Any
) -> tuple[ProbeFolder, dict[ProbeTokens, LinearProbes]]:
    """A folder with random probes of these tokens."""
    written_folder = ProbeFolder(folder / "probe")
    written_folder.begin(record(**settings))
    weights = {tokens: probes(tokens.stop - tokens.start) for tokens in trained}
    for tokens, linear in weights.items():
        written_folder.write(tokens, linear, torch.full((tokens.stop - tokens.start,), 0.5))
    return written_folder, weights


def test_there_and_back(tmp_path: Path) -> None:
    trained = [
        ProbeTokens("attn_out", 1, 0, 2),
        ProbeTokens("attn_out", 1, 2, 5),
        ProbeTokens("resid_post", 11, 100, 1024),
    ]
    files, weights = written(tmp_path, trained)
    assert sorted(path.name for path in files.folder.iterdir()) == [
        "attn_out-01-0000-0002.safetensors",
        "attn_out-01-0002-0005.safetensors",
        "probes.json",
        "resid_post-11-0100-1024.safetensors",
    ]
    fresh = ProbeFolder(files.folder)
    assert fresh.trained() == trained
    assert fresh.record == json.loads(json.dumps(record()))
    opened = fresh.probes("attn_out", 1)
    assert [linear.tokens for linear in opened] == [slice(0, 2), slice(2, 5)]
    for linear, tokens in zip(opened, trained, strict=False):
        assert torch.equal(linear.weight, weights[tokens].weight)
        assert torch.equal(linear.bias, weights[tokens].bias)
    assert fresh.probes("attn_out", 0) == fresh.probes("mlp_out", 1) == []
    assert [(tokens, set(alpha.tolist())) for tokens, alpha in fresh.alphas()] == [
        (tokens, {0.5}) for tokens in trained
    ]


def test_probes_written_later_are_opened(tmp_path: Path) -> None:
    files, _ = written(tmp_path, [])
    assert files.probes("attn_out", 0) == []
    files.write(TOKENS[0], probes(5), torch.ones(5))
    assert len(files.probes("attn_out", 0)) == 1


def test_other_files_are_not_taken_for_probes(tmp_path: Path) -> None:
    files, _ = written(tmp_path, TOKENS[:1])
    for name in (".attn_out-01-0000-0005.safetensors.abc.partial", "letter.safetensors", "attn_out-1-0-5.txt"):
        (files.folder / name).write_text("dear")
    assert files.trained() == TOKENS[:1]


def test_a_digest_identifies_settings(tmp_path: Path) -> None:
    first, same, different = (
        written(tmp_path / name, TOKENS, **settings)[0]
        for name, settings in (("a", {"alpha": 1.0}), ("b", {"alpha": 1.0}), ("c", {"alpha": 2.0}))
    )
    assert first.digest == same.digest != different.digest


def test_probes_that_do_not_fit(tmp_path: Path) -> None:
    refused(lambda: ProbeFolder(tmp_path / "none").check(VIEW), "holds no probes", "`classlens probe`")
    files, _ = written(tmp_path / "less", TOKENS[:2])
    refused(lambda: files.check(VIEW), "not all trained yet", "run the same")
    files.write(TOKENS[2]._replace(stop=4), probes(4), torch.ones(4))
    refused(lambda: files.check(VIEW), "not all trained yet")
    files.write(TOKENS[2]._replace(start=4), probes(1), torch.ones(1))
    files.check(VIEW)
    other = classlens.load(zoo.build("cls", seed=3)).view
    refused(lambda: files.check(other), "'tiny'", "other weights")
    # embed has one block.
    embed, _ = written(tmp_path / "embed", [ProbeTokens("embed", 0, 0, 5)], sites=["embed"])
    embed.check(VIEW)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    files, _ = written(tmp_path, TOKENS[:1])
    path = files.folder / TOKENS[0].file_name
    path.write_bytes(path.read_bytes()[:100])
    refused(lambda: ProbeFolder(files.folder).probes("attn_out", 0), path.name, "remove the file")
    files.write(TOKENS[0], LinearProbes(torch.zeros(1, 2, 2), torch.full((1, 2), float("nan"))), torch.ones(1))
    refused(lambda: files.probes("attn_out", 0), "not finite")
    (files.folder / "probes.json").write_text("dear")
    refused(lambda: files.record, "probes.json", "cannot be read")
    refused(lambda: ProbeFolder(files.folder).check(VIEW), "cannot be read")


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, _ = written(tmp_path, [])

    def full(_: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(probe_folder_module, "save_file", full)
    refused(
        lambda: files.write(TOKENS[0], probes(5), torch.ones(5)),
        "No space left",
        "run the same command again to resume",
    )
    assert [path.name for path in files.folder.iterdir()] == ["probes.json"]


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[]", "3", "[" * 100_000, "{}", '{"weights": "", "model": "x", "sites": 3, "tokens": [0, 5]}'),
        *(json.dumps({**record(), "tokens": value}) for value in (3, [], [0], ["0", 5], [0, None], [0.5, 5], {"0": 5})),
        json.dumps(record()).replace("[0, 5]", "NaN"),
    ],
)
def test_records_of_others(text: str, tmp_path: Path) -> None:
    folder = written(tmp_path, TOKENS)[0]
    (folder.folder / "probes.json").write_text(text)
    refused(lambda: folder.check(VIEW), "cannot be read", "`classlens probe` wrote")


@pytest.mark.parametrize(
    "shapes",
    [
        ((5, WIDTH, CLASSES + 1), (5, CLASSES)),
        ((5, WIDTH, CLASSES), (5, 1)),
        ((4, WIDTH, CLASSES), (4, CLASSES)),
        ((), ()),
    ],
)
def test_probes_of_other_shapes(shapes: tuple[tuple[int, ...], tuple[int, ...]], tmp_path: Path) -> None:
    folder = written(tmp_path, TOKENS)[0]
    weight, bias = (torch.zeros(shape) for shape in shapes)
    save_file({"weight": weight, "bias": bias}, folder.folder / TOKENS[1].file_name)
    refused(lambda: folder.check(VIEW), TOKENS[1].file_name, f"have weights of shape {list(shapes[0])}")


def test_probes_of_other_numbers_and_kinds_of_files(tmp_path: Path) -> None:
    folder = written(tmp_path, TOKENS)[0]
    path = folder.folder / TOKENS[1].file_name
    for dtype in (torch.bfloat16, torch.int64, torch.bool):
        linear = probes(5)
        save_file({"weight": linear.weight.to(dtype), "bias": linear.bias}, path)
        refused(lambda: ProbeFolder(folder.folder).probes("attn_out", 1), "a weight of", "expected float32 or float64")
    for name in (TOKENS[1].file_name, "probes.json"):
        (folder.folder / name).unlink()
        os.mkfifo(folder.folder / name)
        refused(lambda: folder.check(VIEW), "is not a regular file")
