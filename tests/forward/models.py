"""Models of every library, and one for each way in which their blocks are read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import classlens
from classlens.forward.run import run
from classlens.models.view import ModelView
from tests import zoo
from tests.models.library_models import MODELS
from tests.models.tiny_timm import FAMILIES

EVERY: dict[str, Callable[[], nn.Module]] = {
    **MODELS,
    **{f"timm {name}": family.make for name, family in FAMILIES.items()},
}

# Of every implementation of a block the first that is listed here; heads and prefix tokens differ.
_CHOSEN = (
    "timm cls_registers",
    "timm avg_post_norm",
    "torchvision",
    "open_clip avg_norm_after_pool",
    "open_clip tokens_first",
    "transformers ViTForImageClassification",
    "transformers ViTMSNForImageClassification",
    "transformers DeiTForImageClassificationWithTeacher",
    "transformers BeitForImageClassification",
    "transformers Dinov2ForImageClassification",
    "transformers Dinov2WithRegistersForImageClassification",
    "transformers SiglipForImageClassification",
    "timm BEiT, [CLS] head",
    "timm EVA, biases apart",
    "timm EVA, norms inside",
    "timm EVA, post-norm, norms inside",
    "timm EVA-02",
    "timm EVA-02-E, post-norm",
    "timm PE, pool takes [CLS]",
    "timm parallel branches, LayerScale",
    "timm parallel scaling, LayerScale, one bias",
    "timm relative position, shared",
    "timm relative position, post-norm",
    "timm ViT, norm of joined heads",
    "timm ViT, norm of hidden units",
)
IMPLEMENTATIONS = tuple(name for name in _CHOSEN if name in EVERY)
OTHERS = tuple(name for name in EVERY if name not in IMPLEMENTATIONS)
# One for each way to pool tokens, beside the implementations.
POOLINGS = (
    "timm avg",
    "timm avg_includes_prefix",
    "timm avg_norm_before_pool",
    "timm DeiT distilled",
    "timm SigLIP",
    "timm map without prefix",
)
# Of both, those whose attention knows where tokens stand, so that it does not take fewer tokens.
POSITIONAL = frozenset(
    {
        "transformers BeitForImageClassification",
        "timm BEiT, [CLS] head",
        "timm EVA, norms inside",
        "timm EVA-02",
        "timm PE, pool takes [CLS]",
        "timm relative position, shared",
        "timm relative position, post-norm",
    }
)


def view_of(name: str) -> ModelView:
    """A model in float64, its parameters random."""
    module = EVERY[name]()
    if name not in MODELS:
        zoo.randomize(module)
    return classlens.load(module.eval().double()).view


def weights_in_steps(view: ModelView, pixels: Tensor) -> list[Tensor]:
    """Attention weights ``[image, head, query, token]`` by block, from a pass with attention in steps."""
    blocks: list[Tensor] = []
    run(view, pixels, {"attention": lambda _, weights: blocks.append(weights)}, unfused=True)
    return blocks


def pixels_of(view: ModelView, images: int = 2, *, seed: int = 3) -> Tensor:
    shape = (images, view.channels, *view.input_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def implementation(view: ModelView) -> tuple[object, ...]:
    """The class of the first block, and how its points are read and changed."""
    block = view.blocks[0]
    points = {
        (name, point.end, point.editable, point.write is None, bool(point.shares), len(point.more))
        for name, point in block.points.items()
    }
    return view.library, type(block.points["resid_post"].module), frozenset(points)
