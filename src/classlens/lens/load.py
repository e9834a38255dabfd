"""From a model's name, weights or module to the lens that a user holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classlens.core.arguments import AnyPath, AtLeast1
from classlens.core.path_arguments import checked_with_home
from classlens.forward.isolation import isolated
from classlens.lens.lens import Lens
from classlens.models.classes import ClassNames
from classlens.models.load import ModelLike, load_model
from classlens.models.summary import announce
from classlens.models.transforms import Transform


@isolated
@checked_with_home
def load(
    model: ModelLike,
    *,
    checkpoint: AnyPath | None = None,
    num_classes: AtLeast1 | None = None,
    img_size: AtLeast1 | tuple[AtLeast1, AtLeast1] | None = None,
    head: nn.Linear | AnyPath | None = None,
    class_names: ClassNames | Path | None = None,
    transform: Transform | str | None = None,
    crop_pct: float | None = None,
    interpolation: str | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    pretrained: bool = True,
    multi_label: bool | None = None,
    merge_adapters: bool = False,
    **options: Any,
) -> Lens:
    """Load a Vision Transformer classifier and check that classlens reproduces its computation.

    Args:
        model: ``"builtin:cifar10"``; a timm model name such as ``"vit_base_patch32_224.augreg_in21k_ft_in1k"``;
            ``"torchvision:vit_b_16"``; ``"owner/name"`` of the Hugging Face hub or a folder of transformers or peft;
            ``"open_clip:ViT-B-32/laion2b_s34b_b79k"`` with ``class_names`` as prompts; a module of one of these
            libraries; or a ``ModelView`` that describes your own model (also ``"file.py:function"``, a function that
            returns one). Pretrained weights come from the source that the library uses.
        checkpoint: weights for a model name: safetensors or a torch state dict (only tensors are unpickled), within
            wrappers such as ``state_dict``, ``module.`` or ``model.backbone.``; an index of shards; a folder with
            either; or a folder of peft with a low-rank adapter, which is merged into the model's own weights.
        num_classes: rows of the head; taken from the checkpoint when left out.
        img_size: input size in pixels, a number or height and width; taken from the checkpoint when left out. Position
            embeddings of another size are resampled, which is said.
        head: a linear layer, or a file with its weight and bias, for a timm backbone such as DINOv2 or DINOv3. It takes
            the backbone's pooled vector, or ``[cls ; mean(patch)]`` where it is twice as wide.
        class_names: one name for each row of the head: a list in order, a dict from indices to names, or a ``Path`` of
            a file of names.
        transform: a function from a picture to ``[channel, height, width]`` pixels, ``"file.py:function"`` for one in a
            file, or ``"paper"`` (resize without a crop, bilinear, mean = std = 0.5); the model's own eval transform
            when left out.
        crop_pct: share of the shorter side that the center crop keeps, above 0 and at most 1, in that transform.
        interpolation: ``"bicubic"``, ``"bilinear"`` or another one of Pillow, in that transform.
        mean: mean of colors from 0 to 1, one number or one a channel, in that transform.
        std: their standard deviation, likewise.
        device: device of the model, such as ``"cuda"``; unchanged when left out.
        dtype: precision of the model, such as ``"bfloat16"``; unchanged when left out. Projection is in float32 at
            least.
        pretrained: False creates a timm model with random weights.
        multi_label: True for outputs that are labels with a sigmoid each; a single binary logit ``z`` is then two
            classes, negative and positive, with the logits 0 and ``z``. False for classes that exclude each other. When
            left out, what the model's config says (transformers), else classes;
            one output is then a number in its own unit.
        merge_adapters: use a copy of a module in which the low-rank adapters of peft or loralib are merged into the
            weights that they adapt.
        options: passed to ``timm.create_model``, such as ``global_pool="avg"``.

    Returns:
        A ``Lens``. It uses the model's own modules and parameters.

    Raises:
        ClasslensError: an unknown or unsupported model, a checkpoint that does not fit, weights that cannot be
            fetched, weights that are not finite or quantized, or a model for which laws 1 to 3, or the closed form of
            the class gradient, do not hold on a random image.

    Examples:
        >>> import classlens
        >>> lens = classlens.load("builtin:cifar10")
        >>> lens.classes.names[3]
        'cat'
    """
    loaded = load_model(
        model,
        checkpoint=checkpoint,
        num_classes=num_classes,
        img_size=img_size,
        head=head,
        class_names=class_names,
        transform=transform,
        crop_pct=crop_pct,
        interpolation=interpolation,
        mean=mean,
        std=std,
        device=device,
        dtype=dtype,
        pretrained=pretrained,
        multi_label=multi_label,
        merge_adapters=merge_adapters,
        **options,
    )
    lens = Lens(loaded)
    announce(loaded)
    return lens
