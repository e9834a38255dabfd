"""Supported models of transformers: its model classes, and checkpoints in the local cache of the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from classlens.models.adapter import ModelEntry
from classlens.models.transformers_models import SPECS

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")

# Families by the start of a class's name, the first match counts; named like timm's families.
_FAMILIES = {
    "DeiTForImageClassificationWithTeacher": "DeiT distilled",
    "DeiT": "DeiT",
    "Beit": "BEiT",
    "Dinov2": "DINOv2",
    "Siglip": "SigLIP",
    "": "ViT",
}


def list_models() -> Iterator[ModelEntry]:
    """Each class once, for a user's folder; then the cached models. Nothing where transformers is not installed."""
    if find_spec("transformers") is None:
        return
    for model_class in SPECS:
        name = f"FOLDER or hf:OWNER/NAME of a {model_class}"
        yield ModelEntry(name, "transformers", _family(model_class), None, "needs a file")
    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return
    for repository in sorted(repositories, key=lambda repository: repository.repo_id):
        for revision in repository.revisions if repository.repo_type == "model" else ():
            files = {file.file_name: file.file_path for file in revision.files}
            config = _config(files.get("config.json"))
            architecture = next(iter(config.get("architectures") or ()), "")
            if architecture in SPECS and "main" in revision.refs:
                labels = config.get("id2label") or {}
                rows = len(labels) or int(config.get("num_labels", 2))
                here = any(name in files for name in _WEIGHTS)
                name = f"hf:{repository.repo_id}"
                yield ModelEntry(name, "transformers", _family(architecture), rows, "here" if here else "not here")


def _family(model_class: str) -> str:
    return next(family for start, family in _FAMILIES.items() if model_class.startswith(start))


def _config(path: Path | None) -> dict[str, Any]:
    """The content of a config.json; empty for a broken file, which only hides a cached model."""
    try:
        config = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
