"""Names of timm's Vision Transformers with their families, and whether their weights are on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatch

import timm
from timm.data import infer_imagenet_subset
from timm.models import PretrainedCfg

from classlens.models.adapter import ModelEntry, Weights
from classlens.models.weight_cache import in_hub_cache, in_torch_hub

# timm's modules with Vision Transformers, and the family of the models that match no pattern below.
MODULES = {
    "vision_transformer": "ViT",
    "vision_transformer_hybrid": "ViT hybrid",
    "vision_transformer_relpos": "ViT relative position",
    "deit": "DeiT",
    "beit": "BEiT",
    "eva": "EVA",
}
# The first pattern that matches an architecture decides.
_FAMILIES = {
    "deit3_*": "DeiT-III",
    "deit_*distilled*": "DeiT distilled",
    "beitv2_*": "BEiTv2",
    "beit3_*": "BEiT-3",
    "eva02_*": "EVA-02",
    "eva_*": "EVA",
    "*dinov3*": "DINOv3",
    "*dinov2*": "DINOv2",
    "*siglip*": "SigLIP",
    "*clip*": "CLIP",
    "*_pe_*": "Perception Encoder",
    "*radio*": "RADIO",
    "*tips*": "TIPS",
    "*sapiens2*": "Sapiens2",
    "*lingbot*": "LingBot",
    "*intern300m*": "InternViT",
    "*_rope_*": "ViT rotary position",
    "aimv2_*": "AIMv2",
    "flexivit_*": "FlexiViT",
}
# Differential attention has no single weight between two tokens.
_REFUSED = ("vit_dlittle_*", "vit_dwee_*", "vit_dpwee_*")
_FILES = ("model.safetensors", "pytorch_model.bin")  # timm's defaults


def list_models() -> Iterator[ModelEntry]:
    """Every architecture of these modules, each followed by its pretrained tags."""
    for module, family in MODULES.items():
        tagged: dict[str, list[str]] = {}
        for name in timm.list_models(module=module, include_tags=True):
            tagged.setdefault(name.partition(".")[0], []).append(name)
        for architecture in timm.list_models(module=module, exclude_filters=list(_REFUSED)):
            matches = (named for pattern, named in _FAMILIES.items() if fnmatch(architecture, pattern))
            architecture_family = next(matches, family)
            for name in (architecture, *(name for name in tagged.get(architecture, ()) if name != architecture)):
                config = timm.get_pretrained_cfg(name)
                yield ModelEntry(name, "timm", architecture_family, _classes(name, config), _weights(config))


def _classes(name: str, config: PretrainedCfg | None) -> int:
    """Rows of the classifier; 0 for CLIP's image towers, whose head returns an embedding unless fine-tuned."""
    if config is None or (("clip" in name or "_pe_" in name) and infer_imagenet_subset(config.to_dict()) is None):
        return 0
    return int(config.num_classes)


def weights(name: str) -> Weights:
    """The source of the weights of a timm name."""
    return _weights(timm.get_pretrained_cfg(name))


def _weights(config: PretrainedCfg | None) -> Weights:
    """Checks the sources in timm's order: a file, the hub, a URL."""
    if config is None:
        return "none published"
    if config.file:
        return "here" if os.path.isfile(config.file) else "needs a file"
    if config.hf_hub_id:
        files = (config.hf_hub_filename,) if config.hf_hub_filename else _FILES
        return "here" if in_hub_cache(config.hf_hub_id, files) else "not here"
    if isinstance(config.url, str) and config.url:
        return "here" if in_torch_hub(config.url) else "not here"
    return "none published"
