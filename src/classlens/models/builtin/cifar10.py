"""``builtin:cifar10``: timm's VisionTransformer with a small convolutional stem (see cifar10.md)."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from classlens.models.builtin.builtin_model import BuiltinModel

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGE_SIZE = 32
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


class ConvStem(nn.Module):
    """Three 3x3 convolutions and a 1x1 convolution in place of timm's patch embedding: 32x32 pixels to 8x8 tokens.

    It has the attributes that ``VisionTransformer`` expects of an ``embed_layer``: ``num_patches``, ``grid_size``,
    ``img_size`` and ``patch_size``. With convolutions before the first block, a ViT of this size learns CIFAR-10 in
    tens of epochs; with a single patch projection it needs hundreds.
    """

    def __init__(
        self, img_size: int = IMAGE_SIZE, patch_size: int = 4, in_chans: int = 3, embed_dim: int = 128, **_: Any
    ) -> None:
        super().__init__()
        side = img_size // patch_size
        self.img_size = (img_size, img_size)
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (side, side)
        self.num_patches = side * side

        def layer(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(channels_out),
                nn.ReLU(),
            )

        self.net = nn.Sequential(
            layer(in_chans, embed_dim // 4, 1),
            layer(embed_dim // 4, embed_dim // 2, 2),
            layer(embed_dim // 2, embed_dim, 2),
            nn.Conv2d(embed_dim, embed_dim, 1),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.net(pixels)
        return features.flatten(2).transpose(1, 2)


def build(*, drop_path_rate: float = 0.0) -> VisionTransformer:
    """The untrained architecture: 6 blocks of 4 heads, 128 wide, one ``[CLS]`` and 8x8 image tokens."""
    return VisionTransformer(
        img_size=IMAGE_SIZE,
        patch_size=4,
        embed_dim=128,
        depth=6,
        num_heads=4,
        num_classes=len(CLASS_NAMES),
        embed_layer=ConvStem,
        drop_path_rate=drop_path_rate,
    )


MODEL = BuiltinModel("cifar10", build, CLASS_NAMES, IMAGE_SIZE, MEAN, STD)
