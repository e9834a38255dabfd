"""Weights in a file, in shards with an index, or in a folder of either."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from classlens.errors import ClasslensError

INDEX = ".index.json"
WEIGHTS = tuple(f"{file}{index}" for file in ("model.safetensors", "pytorch_model.bin") for index in ("", INDEX))
"""Weights in a folder of transformers or accelerate, the first one counts."""
_BY_NAME = (*WEIGHTS, "open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model_best.pth.tar")
_ENDINGS = (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".pth.tar")
# Folders in which training on several machines keeps its shards.
_SHARDED = {
    "pytorch_model_fsdp_0": "accelerate merge-weights FOLDER/pytorch_model_fsdp_0 FOLDER",
    "zero_to_fp32.py": "python zero_to_fp32.py FOLDER OUT",
}


def weight_file(path: Path) -> Path:
    """The file or index of weights that a path means: itself, or a file in the folder.

    Raises ClasslensError for a folder without such a file, or with several.
    """
    if not path.is_dir():
        return path
    for name in _BY_NAME:
        if (path / name).is_file():
            return path / name
    for name, command in _SHARDED.items():
        if (path / name).exists():
            raise ClasslensError(
                f"checkpoint {str(path)!r} is a folder of parts of tensors, as distributed training keeps them: "
                f"convert it once with `{command}` and give the folder that it writes"
            )
    names = sorted(file.name for file in path.iterdir() if file.name.endswith((*_ENDINGS, INDEX)) and file.is_file())
    if len(names) == 1:
        return path / names[0]
    raise ClasslensError(
        f"checkpoint {str(path)!r} is a folder with "
        f"{f'several files, such as {names[0]!r} and {names[1]!r}' if names else 'no weights'}: give the path of a "
        f"file, or a folder with {', '.join(WEIGHTS[:2])}, {WEIGHTS[2]} or {WEIGHTS[3]}"
    )


def read_shards(index: Path, read: Callable[[Path], Mapping[Any, Any]]) -> dict[str, Tensor]:
    """The tensors of all shards of an index.

    Raises ClasslensError for an index of another form or with files outside of its folder, and for shards that are
    missing or hold other tensors than the index says.
    """
    names_by_shard: dict[str, list[str]] = {}
    for name, shard in _weight_map(index).items():
        names_by_shard.setdefault(shard, []).append(name)
    state: dict[str, Tensor] = {}
    for shard, names in sorted(names_by_shard.items()):
        tree = read(index.parent / shard)
        tensors = {name: value for name, value in tree.items() if isinstance(value, Tensor)}
        lacking = next((name for name in names if name not in tensors), None)
        other = next((name for name in tensors if name not in names), None)
        if lacking is not None or other is not None:
            difference = f"lacks {lacking!r}" if lacking is not None else f"holds {other!r} beside them"
            raise ClasslensError(
                f"checkpoint {str(index)!r} lists {len(names)} tensors of {shard!r}, which {difference}: give the "
                "index and the shards of one and the same saving"
            )
        state |= tensors
    return state


def check_index(index: Path) -> None:
    """Raises ClasslensError for an index of another form, with files outside of its folder, or without its shards."""
    _weight_map(index)


def _weight_map(index: Path) -> dict[str, str]:
    """The file of each tensor, a name in the folder of the index."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        shards = dict(content["weight_map"])
        if not shards or not all(isinstance(shard, str) for shard in shards.values()):
            raise TypeError
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise ClasslensError(
            f"checkpoint {str(index)!r} is not an index of shards: expected JSON with a weight_map from names of "
            "tensors to files, as save_pretrained writes it"
        ) from None
    for shard in sorted(set(shards.values())):
        if not shard.strip(".") or shard.endswith(INDEX) or any(sign in shard for sign in "/\\:\0"):
            raise ClasslensError(
                f"checkpoint {str(index)!r} names {shard!r}, no file beside it: give an index whose shards lie "
                "in its own folder"
            )
        if not (index.parent / shard).is_file():
            raise ClasslensError(
                f"checkpoint {str(index)!r} lists {len(set(shards.values()))} shards, of which {shard!r} is missing: "
                "fetch or copy all of them into its folder"
            )
    return shards
