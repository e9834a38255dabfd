"""The models of transformers that can be read: its classes, and checkpoints in the local cache of the hub."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from classlens.models.families import Known

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")

# The first start of a class's name that fits; the families are called as timm's are.
_FAMILIES = {
    "DeiTForImageClassificationWithTeacher": "DeiT distilled",
    "DeiT": "DeiT",
    "Beit": "BEiT",
    "Dinov2": "DINOv2",
    "Siglip": "SigLIP",
    "": "ViT",
}


def known(classes: Collection[str]) -> Iterator[Known]:
    """Each class once, for a folder of the user's; then what is cached. Nothing where transformers is not installed."""
    if find_spec("transformers") is None:
        return
    for kind in classes:
        yield Known(f"FOLDER or hf:OWNER/NAME of a {kind}", "transformers", _family(kind), None, "needs a file")
    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return
    for repository in sorted(repositories, key=lambda repository: repository.repo_id):
        for revision in repository.revisions if repository.repo_type == "model" else ():
            files = {file.file_name: file.file_path for file in revision.files}
            config = _config(files.get("config.json"))
            architecture = next(iter(config.get("architectures") or ()), "")
            if architecture in classes and "main" in revision.refs:
                labels = config.get("id2label") or {}
                rows = len(labels) or int(config.get("num_labels", 2))
                here = any(name in files for name in _WEIGHTS)
                name = f"hf:{repository.repo_id}"
                yield Known(name, "transformers", _family(architecture), rows, "here" if here else "not here")


def _family(kind: str) -> str:
    return next(family for start, family in _FAMILIES.items() if kind.startswith(start))


def _config(path: Path | None) -> dict[str, Any]:
    """What a config.json says, empty if it cannot be read: a broken cache hides a model, no more."""
    try:
        config = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
