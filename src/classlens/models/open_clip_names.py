"""Names of OpenCLIP's models with supported image towers, and whether their weights are on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import timm

from classlens.models.adapter import ModelEntry
from classlens.models.timm_names import MODULES
from classlens.models.weight_cache import in_hub_cache

PREFIX = "open_clip:"
_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # OpenCLIP's defaults


def list_models() -> Iterator[ModelEntry]:
    """Each supported architecture with each tag of its weights; nothing where OpenCLIP is not installed."""
    if find_spec("open_clip") is None:
        return
    import open_clip as library

    timm_names = {name for module in MODULES for name in timm.list_models(module=module)}
    for architecture, tag in library.list_pretrained():
        vision: Mapping[str, Any] = (library.get_model_config(architecture) or {}).get("vision_cfg", {})
        if not _is_supported(vision, timm_names):
            continue
        here = _is_here(library.get_pretrained_cfg(architecture, tag))
        family = "SigLIP" if "siglip" in architecture.lower() else "CLIP"
        yield ModelEntry(f"{PREFIX}{architecture}/{tag}", "open_clip", family, None, "here" if here else "not here")


def _is_supported(vision: Mapping[str, Any], timm_names: set[str]) -> bool:
    """Whether an image tower is a Vision Transformer without OpenCLIP's attentional pool."""
    trunk = vision.get("timm_model_name")
    if trunk is not None:
        return trunk in timm_names and vision.get("timm_pool") in ("token", "avg", "map")
    return not isinstance(vision.get("layers"), list) and not vision.get("attentional_pool")


def _is_here(config: Mapping[str, Any]) -> bool:
    """Checks OpenCLIP's two caches: that of the hub, or the folder of CLIP's first release."""
    repository, file = os.path.split(config.get("hf_hub", ""))
    if repository:
        return in_hub_cache(repository, (file.rpartition(".")[0] + ".safetensors", file) if file else _FILES)
    url = config.get("url", "")
    return bool(url) and os.path.isfile(os.path.expanduser(f"~/.cache/clip/{os.path.basename(url)}"))
