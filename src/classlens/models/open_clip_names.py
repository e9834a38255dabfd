"""OpenCLIP's names whose image towers can be read, and whether their weights are on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import timm

from classlens.models.families import Known
from classlens.models.timm_names import MODULES
from classlens.models.weight_cache import in_hub_cache

_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # where no file is named


def known(prefix: str) -> Iterator[Known]:
    """Each architecture with each tag of its weights; nothing where OpenCLIP is not installed."""
    if find_spec("open_clip") is None:
        return
    import open_clip as library

    through_timm = {name for module in MODULES for name in timm.list_models(module=module)}
    for architecture, tag in library.list_pretrained():
        vision: Mapping[str, Any] = (library.get_model_config(architecture) or {}).get("vision_cfg", {})
        if not _read(vision, through_timm):
            continue
        here = _here(library.get_pretrained_cfg(architecture, tag))
        family = "SigLIP" if "siglip" in architecture.lower() else "CLIP"
        yield Known(f"{prefix}{architecture}/{tag}", "open_clip", family, None, "here" if here else "not here")


def _read(vision: Mapping[str, Any], through_timm: set[str]) -> bool:
    """No ResNet, no attentional pool of OpenCLIP's own, nothing of timm's but its Vision Transformers."""
    trunk = vision.get("timm_model_name")
    if trunk is not None:
        return trunk in through_timm and vision.get("timm_pool") in ("token", "avg", "map")
    return not isinstance(vision.get("layers"), list) and not vision.get("attentional_pool")


def _here(config: Mapping[str, Any]) -> bool:
    """Where OpenCLIP looks: on the hub if it is there, else in the folder of CLIP's first release."""
    repository, file = os.path.split(config.get("hf_hub", ""))
    if repository:
        return in_hub_cache(repository, (file.rpartition(".")[0] + ".safetensors", file) if file else _FILES)
    url = config.get("url", "")
    return bool(url) and os.path.isfile(os.path.expanduser(f"~/.cache/clip/{os.path.basename(url)}"))
