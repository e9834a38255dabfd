"""The libraries whose models classlens describes. Names stay known without importing torch or a library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classlens.registry import Registry

if TYPE_CHECKING:
    from classlens.models.adapter import Adapter

# In the order in which they are asked whether a model name is theirs.
ADAPTERS: Registry[Adapter] = Registry(
    "model library",
    {
        "file": "classlens.models.user_file:ADAPTER",
        "classlens": "classlens.models.builtin:ADAPTER",
        "paper": "classlens.models.paper:ADAPTER",
        "timm": "classlens.models.timm:ADAPTER",
        "torchvision": "classlens.models.torchvision:ADAPTER",
        "open_clip": "classlens.models.open_clip:ADAPTER",
        "transformers": "classlens.models.transformers:ADAPTER",
    },
)
