"""Data layouts by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classlens.registry import Registry

if TYPE_CHECKING:
    from classlens.data.layout import Layout

LAYOUTS: Registry[Layout] = Registry(
    "layout",
    {
        "folder": "classlens.data.layouts.folder:LAYOUT",
        "list": "classlens.data.layouts.file_list:LAYOUT",
        "imagenet-s": "classlens.data.layouts.imagenet_s:LAYOUT",
        "pets": "classlens.data.layouts.pets:LAYOUT",
        "voc": "classlens.data.layouts.voc:LAYOUT",
        "coco": "classlens.data.layouts.coco:LAYOUT",
        "cifar10": "classlens.data.layouts.cifar:CIFAR10",
        "cifar100": "classlens.data.layouts.cifar:CIFAR100",
        "hf": "classlens.data.layouts.hugging_face:LAYOUT",
    },
)
