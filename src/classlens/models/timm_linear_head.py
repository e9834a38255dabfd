"""A backbone of timm with a user's linear head, such as a linear probe of DINOv2 or DINOv3."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classlens.core.space import ClassSpace
from classlens.core.steps import detached
from classlens.errors import ClasslensError
from classlens.models.adapter import LibraryModel
from classlens.models.files import HALF_TO_DOUBLE, require_floats
from classlens.models.timm_blocks import timm_norm_maps
from classlens.models.timm_models import class_space, describe_model, find_spec, pooled_tokens
from classlens.models.torch_layers import Refuse
from classlens.models.view import ModelView, Readout
from classlens.models.weight_search import read_state


class LinearHead(nn.Module):
    """A linear head on the pooled output of a backbone, or on ``[cls ; mean(patch)]`` where it is twice as wide."""

    def __init__(self, backbone: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    @property
    def is_split(self) -> bool:
        """Whether the head takes ``[CLS]`` together with the mean of the image tokens."""
        backbone: Any = self.backbone
        return bool(self.head.in_features == 2 * backbone.num_features)

    def forward(self, pixels: Tensor) -> Tensor:
        backbone: Any = self.backbone
        tokens = backbone.forward_features(pixels)
        if self.is_split:
            pooled = torch.cat([tokens[:, 0], tokens[:, backbone.num_prefix_tokens :].mean(dim=1)], dim=1)
        else:
            pooled = backbone.forward_head(tokens, pre_logits=True)
        logits: Tensor = self.head(pooled)
        return logits


def with_head(model: LibraryModel, head: nn.Linear | str | Path, name: str) -> LibraryModel:
    """A backbone with a user's head: a linear layer, or a file with its weight (and bias)."""
    linear = head if isinstance(head, nn.Linear) else _read_head(head)
    spec = find_spec(model.module)
    if spec is None:
        raise ClasslensError(
            f"model {name!r} is a {type(model.module).__name__}: head= goes with Vision Transformers of timm; put "
            "the head into the model, or describe it with a ModelView"
        )
    if spec.pooling is not None:
        raise ClasslensError(
            f"model {name!r} has two heads, which one head= cannot replace: give a backbone with one head or none"
        )
    backbone: Any = model.module
    width = backbone.num_features
    if linear.in_features not in (width, 2 * width) or (linear.in_features == 2 * width and backbone.cls_token is None):
        raise ClasslensError(
            f"the head of model {name!r} takes {linear.in_features} numbers: expected {width} for the pooled output, "
            f"or {2 * width} for [CLS] and the mean of the image tokens; give the head that was trained on this "
            "backbone"
        )
    parameter = next(backbone.parameters())
    linear = linear.to(parameter.device, parameter.dtype) if linear is not head else linear
    return replace(model, module=LinearHead(backbone, linear).train(backbone.training), class_names=None)


def describe_head(module: LinearHead, name: str, refuse: Refuse) -> ModelView:
    """The view of the backbone with the readouts of the user's head."""
    spec = find_spec(module.backbone)
    assert spec is not None, "checked by with_head"
    spec = replace(spec, readouts=partial(_readouts, module), pooling="cls+avg" if module.is_split else None)
    return replace(describe_model(module.backbone, spec, name, refuse), module=module)


def _readouts(module: LinearHead, backbone: Any, pool: str, prefix: int, refuse: Refuse) -> tuple[Readout, ...]:
    if not module.is_split:
        space = class_space(backbone, module.head, pool, refuse)
        return (Readout(space, pooled_tokens(backbone, pool, prefix)),)
    before, bias = timm_norm_maps(backbone.norm, refuse), detached(module.head.bias)
    first, second = (ClassSpace(before, (), half, bias) for half in module.head.weight.detach().chunk(2, dim=1))
    patches = slice(prefix, None)
    return Readout(first, slice(0, 1)), Readout(second, patches, tokens=slice(1, None), counts_bias=False)


def _read_head(path: str | Path) -> nn.Linear:
    state = read_state(path)
    weights = [key for key, value in state.items() if value.ndim == 2 and value.numel()]
    if len(weights) != 1 or len(state) > 2:
        raise ClasslensError(
            f"head {str(path)!r} holds {len(state)} tensors: expected the weight [classes, width] of one linear layer, "
            "and perhaps its bias"
        )
    weight = state[weights[0]]
    bias = next((value for key, value in state.items() if key != weights[0]), None)
    require_floats(
        f"head {str(path)!r}", dtypes=HALF_TO_DOUBLE, weight=weight, **({} if bias is None else {"bias": bias})
    )
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    if bias is not None and bias.shape != linear.bias.shape:
        raise ClasslensError(
            f"head {str(path)!r} has a bias of shape {list(bias.shape)} for {weight.shape[0]} classes: give one number "
            "a class"
        )
    linear.load_state_dict({"weight": weight, **({} if bias is None else {"bias": bias})})
    return linear
