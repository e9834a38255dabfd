"""Grad-CAM by pytorch-grad-cam, for Vision Transformers of timm: ``--method grad_cam_maps.py:gradcam``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor


def gradcam(model: Any, pixels: Tensor, target: Tensor) -> NDArray[np.float32]:
    """Grad-CAM at the input of the last block's attention; each map from 0 to 1, [image, row, column] of the pixels."""
    outputs = [ClassifierOutputTarget(index) for index in target.tolist()]
    grid, prefix = model.patch_embed.grid_size, model.num_prefix_tokens

    def reshape(tokens: Tensor) -> Tensor:
        on_grid: Tensor = tokens[:, prefix:].unflatten(1, grid)
        return on_grid.permute(0, 3, 1, 2)

    with GradCAM(model, [model.blocks[-1].norm1], reshape) as tool:
        maps: NDArray[np.float32] = tool(pixels, outputs)
    return maps
