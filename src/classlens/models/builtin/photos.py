"""``builtin:photos``: timm's VisionTransformer for photos of 224×224 pixels (see photos.md)."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer

from classlens.models.builtin.builtin_model import BuiltinModel

CLASS_NAMES = (
    *("tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck"),
    *("gas pump", "golf ball", "parachute", "Abyssinian", "Bengal", "american bulldog"),
)
IMAGE_SIZE = 224
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def build() -> VisionTransformer:
    """The untrained architecture: 8 blocks of 6 heads, 384 wide, one ``[CLS]`` and 14×14 image tokens."""
    return VisionTransformer(
        img_size=IMAGE_SIZE,
        patch_size=16,
        embed_dim=384,
        depth=8,
        num_heads=6,
        mlp_ratio=1,
        num_classes=len(CLASS_NAMES),
    )


MODEL = BuiltinModel("photos", build, CLASS_NAMES, IMAGE_SIZE, MEAN, STD)
