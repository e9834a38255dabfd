"""Trained probes on disk."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import classlens
from classlens.core.probes import LinearProbes
from classlens.models.digest import weights_digest
from classlens.store import probe_folder as probe_files
from classlens.store.probe_folder import ProbeFolder, ProbeTokens
from tests import zoo
from tests.refusals import refused

VIEW = classlens.load(zoo.build("cls")).view
WIDTH, CLASSES = 24, 11
PLACES = [ProbeTokens("attn_out", block, 0, 5) for block in range(3)]


def probes(count: int) -> LinearProbes:
    return LinearProbes(torch.randn(count, WIDTH, CLASSES), torch.randn(count, CLASSES))


def note(**more: Any) -> dict[str, Any]:
    return {"weights": weights_digest(VIEW), "model": "tiny", "sites": ["attn_out"], "tokens": [0, 5], **more}


def written(folder: Path, places: list[ProbeTokens], **more: Any) -> tuple[ProbeFolder, dict[ProbeTokens, LinearProbes]]:
    files = ProbeFolder(folder / "probe")
    files.begin(note(**more))
    made = {place: probes(place.stop - place.start) for place in places}
    for place, one in made.items():
        files.write(place, one, torch.full((place.stop - place.start,), 0.5))
    return files, made


def test_there_and_back(tmp_path: Path) -> None:
    places = [ProbeTokens("attn_out", 1, 0, 2), ProbeTokens("attn_out", 1, 2, 5), ProbeTokens("resid_post", 11, 100, 1024)]
    files, made = written(tmp_path, places)
    assert sorted(path.file_name for path in files.folder.iterdir()) == [
        "attn_out-01-0000-0002.safetensors",
        "attn_out-01-0002-0005.safetensors",
        "probes.json",
        "resid_post-11-0100-1024.safetensors",
    ]
    fresh = ProbeFolder(files.folder)
    assert fresh.trained() == places
    assert fresh.record == json.loads(json.dumps(note()))
    found = fresh.probes("attn_out", 1)
    assert [one.tokens for one in found] == [slice(0, 2), slice(2, 5)]
    for one, place in zip(found, places, strict=False):
        assert torch.equal(one.weight, made[place].weight)
        assert torch.equal(one.bias, made[place].bias)
    assert fresh.probes("attn_out", 0) == fresh.probes("mlp_out", 1) == []
    assert next((place, alpha.tolist()) for place, alpha in fresh.alphas()) == (places[0], [0.5, 0.5])


def test_what_is_written_later_is_seen(tmp_path: Path) -> None:
    files, _ = written(tmp_path, [])
    assert files.probes("attn_out", 0) == []
    files.write(PLACES[0], probes(5), torch.ones(5))
    assert len(files.probes("attn_out", 0)) == 1


def test_other_files_are_not_taken_for_probes(tmp_path: Path) -> None:
    files, _ = written(tmp_path, PLACES[:1])
    for name in (".attn_out-01-0000-0005.safetensors.abc.partial", "letter.safetensors", "attn_out-1-0-5.txt"):
        (files.folder / name).write_text("dear")
    assert files.trained() == PLACES[:1]


def test_a_digest_tells_settings_apart(tmp_path: Path) -> None:
    one, other, third = (
        written(tmp_path / name, PLACES, **more)[0]
        for name, more in (("a", {"alpha": 1.0}), ("b", {"alpha": 1.0}), ("c", {"alpha": 2.0}))
    )
    assert one.digest == other.digest != third.digest


def test_probes_that_do_not_fit(tmp_path: Path) -> None:
    refused(lambda: ProbeFolder(tmp_path / "none").check(VIEW), "holds no probes", "`classlens probe`")
    files, _ = written(tmp_path / "less", PLACES[:2])
    refused(lambda: files.check(VIEW), "not all trained yet", "run the same")
    files.write(PLACES[2]._replace(stop=4), probes(4), torch.ones(4))
    refused(lambda: files.check(VIEW), "not all trained yet")
    files.write(PLACES[2]._replace(start=4), probes(1), torch.ones(1))
    files.check(VIEW)
    other = classlens.load(zoo.build("cls", seed=3)).view
    refused(lambda: files.check(other), "'tiny'", "other weights")
    # The embeddings have one block.
    embed, _ = written(tmp_path / "embed", [ProbeTokens("embed", 0, 0, 5)], sites=["embed"])
    embed.check(VIEW)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    files, _ = written(tmp_path, PLACES[:1])
    path = files.folder / PLACES[0].file_name
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    refused(lambda: ProbeFolder(files.folder).probes("attn_out", 0), path.file_name, "remove the file")
    files.write(PLACES[0], LinearProbes(torch.zeros(1, 2, 2), torch.full((1, 2), float("nan"))), torch.ones(1))
    refused(lambda: files.probes("attn_out", 0), "not finite")
    (files.folder / "probes.json").write_text("dear")
    refused(lambda: files.record, "probes.json", "cannot be read")
    refused(lambda: ProbeFolder(files.folder).check(VIEW), "cannot be read")


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, _ = written(tmp_path, [])

    def full(_: Any, made: Path) -> None:
        made.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(probe_files, "save_file", full)
    refused(lambda: files.write(PLACES[0], probes(5), torch.ones(5)), "No space left", "go on")
    assert [path.file_name for path in files.folder.iterdir()] == ["probes.json"]
