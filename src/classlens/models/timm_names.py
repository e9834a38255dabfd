"""The names of timm's Vision Transformers, their families, and whether their weights are on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatch

import timm
from timm.data import infer_imagenet_subset
from timm.models import PretrainedCfg

from classlens.models.families import Known, Weights
from classlens.models.weight_cache import in_hub_cache, in_torch_hub

# timm's modules with Vision Transformers, and the family of their models that no pattern below names.
MODULES = {
    "vision_transformer": "ViT",
    "vision_transformer_hybrid": "ViT hybrid",
    "vision_transformer_relpos": "ViT relative position",
    "deit": "DeiT",
    "beit": "BEiT",
    "eva": "EVA",
}
# The first pattern that fits an architecture decides.
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
# Differential attention, which has no one weight between two tokens.
_REFUSED = ("vit_dlittle_*", "vit_dwee_*", "vit_dpwee_*")
_FILES = ("model.safetensors", "pytorch_model.bin")  # what timm looks for where no file is named


def known() -> Iterator[Known]:
    """Every architecture of these modules, each followed by its pretrained tags."""
    for module, family in MODULES.items():
        tagged: dict[str, list[str]] = {}
        for name in timm.list_models(module=module, include_tags=True):
            tagged.setdefault(name.partition(".")[0], []).append(name)
        for architecture in timm.list_models(module=module, exclude_filters=list(_REFUSED)):
            kind = next((known for pattern, known in _FAMILIES.items() if fnmatch(architecture, pattern)), family)
            for name in (architecture, *(name for name in tagged.get(architecture, ()) if name != architecture)):
                config = timm.get_pretrained_cfg(name)
                yield Known(name, "timm", kind, _classes(name, config), _weights(config))


def _classes(name: str, config: PretrainedCfg | None) -> int:
    """Rows of the classifier; 0 for CLIP's image towers, whose head makes a text-image embedding unless fine-tuned."""
    if config is None or (("clip" in name or "_pe_" in name) and infer_imagenet_subset(config.to_dict()) is None):
        return 0
    return int(config.num_classes)


def weights(name: str) -> Weights:
    """Where the weights of a timm name are."""
    return _weights(timm.get_pretrained_cfg(name))


def _weights(config: PretrainedCfg | None) -> Weights:
    """In the order in which timm looks: a file, the hub, an address."""
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
