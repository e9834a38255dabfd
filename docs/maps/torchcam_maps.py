"""Grad-CAM and LayerCAM by torchcam, for Vision Transformers of timm: ``--method torchcam_maps.py:layer_cam``."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchcam.methods import GradCAM, LayerCAM


def torchcam_grad_cam(model: Any, pixels: Tensor, target: Tensor) -> Tensor:
    """Grad-CAM at the input of the last block's attention; at least 0, [image, row, column] of tokens."""
    return _maps(GradCAM, model, pixels, target)


def layer_cam(model: Any, pixels: Tensor, target: Tensor) -> Tensor:
    """LayerCAM at the input of the last block's attention; at least 0, [image, row, column] of tokens."""
    return _maps(LayerCAM, model, pixels, target)


def _maps(tool: Any, model: Any, pixels: Tensor, target: Tensor) -> Tensor:
    grid, prefix = model.patch_embed.grid_size, model.num_prefix_tokens

    def reshape(tokens: Tensor) -> Tensor:
        on_grid: Tensor = tokens[:, prefix:].unflatten(1, grid)
        return on_grid.permute(0, 3, 1, 2)

    with tool(model, model.blocks[-1].norm1, reshape_transform=reshape) as cam:
        maps: Tensor = cam(target.tolist(), model(pixels), normalized=False)[0]
    return maps
