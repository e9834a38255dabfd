"""A backbone of timm with a linear head of the user's own, as probes of DINOv2 and DINOv3 are trained."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classlens.core.maps import detached
from classlens.core.space import ClassSpace
from classlens.errors import ClasslensError
from classlens.models import timm
from classlens.models.checkpoint import read_state
from classlens.models.families import Created
from classlens.models.timm_blocks import norms
from classlens.models.timm_layout import layout_of, pooled_of, space_of, view_of
from classlens.models.torch_layers import Refuse
from classlens.models.view import ModelView, Readout


class LinearHead(nn.Module):
    """A linear head on what the backbone pools, or on ``[cls ; mean(patch)]`` where it is twice as wide."""

    def __init__(self, backbone: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    @property
    def both(self) -> bool:
        """Whether the head reads ``[CLS]`` beside the mean of the image tokens."""
        own: Any = self.backbone
        return bool(self.head.in_features == 2 * own.num_features)

    def forward(self, pixels: Tensor) -> Tensor:
        own: Any = self.backbone
        tokens = own.forward_features(pixels)
        if self.both:
            pooled = torch.cat([tokens[:, 0], tokens[:, own.num_prefix_tokens :].mean(dim=1)], dim=1)
        else:
            pooled = own.forward_head(tokens, pre_logits=True)
        logits: Tensor = self.head(pooled)
        return logits


def with_head(created: Created, head: nn.Linear | str | Path, name: str) -> Created:
    """A made backbone under a user's head: a linear layer, or a file with its weight (and bias)."""
    linear = head if isinstance(head, nn.Linear) else _read(head)
    layout = layout_of(created.module)
    if layout is None:
        raise ClasslensError(
            f"model {name!r} is a {type(created.module).__name__}: head= goes with Vision Transformers of timm; put "
            "the head into the model, or describe it with a ModelView"
        )
    if layout.pooling is not None:
        raise ClasslensError(
            f"model {name!r} has two heads, for which one head= cannot stand: give a backbone with one head or none"
        )
    own: Any = created.module
    width = own.num_features
    if linear.in_features not in (width, 2 * width) or (linear.in_features == 2 * width and own.cls_token is None):
        raise ClasslensError(
            f"the head of model {name!r} takes {linear.in_features} numbers: expected {width}, what the model pools, "
            f"or {2 * width}, [CLS] and the mean of the image tokens; give the head that was trained on this backbone"
        )
    parameter = next(own.parameters())
    linear = linear.to(parameter.device, parameter.dtype) if linear is not head else linear
    return replace(created, module=LinearHead(own, linear).train(own.training), class_names=None)


def view(module: nn.Module, name: str) -> ModelView:
    """The backbone's own view with the readouts of the user's head."""
    assert isinstance(module, LinearHead)
    layout = layout_of(module.backbone)
    assert layout is not None, "with_head has looked"
    changed = replace(layout, readouts=partial(_readouts, module), pooling="cls+avg" if module.both else None)
    found = view_of(module.backbone, changed, name, partial(timm.refuse, name))
    return replace(found, module=module)


def known_as(module: nn.Module) -> Created:
    """The backbone's transform; class names are the user's."""
    assert isinstance(module, LinearHead)
    return replace(timm.known_as(module.backbone), module=module, class_names=None)


def _readouts(own: LinearHead, module: Any, pool: str, prefix: int, refuse: Refuse) -> tuple[Readout, ...]:
    if not own.both:
        return (Readout(space_of(module, own.head, pool, refuse), pooled_of(module, pool, prefix)),)
    before, bias = norms(module.norm, refuse), detached(own.head.bias)
    first, second = (ClassSpace(before, (), half, bias) for half in own.head.weight.detach().chunk(2, dim=1))
    patches = slice(prefix, None)
    return Readout(first, slice(0, 1)), Readout(second, patches, tokens=slice(1, None), counts_bias=False)


def _read(path: str | Path) -> nn.Linear:
    state = read_state(path)
    weights = [key for key, value in state.items() if value.ndim == 2]
    if len(weights) != 1 or len(state) > 2:
        raise ClasslensError(
            f"head {str(path)!r} holds {len(state)} tensors: expected the weight [classes, width] of one linear layer, "
            "and perhaps its bias"
        )
    weight = state[weights[0]]
    bias = next((value for key, value in state.items() if key != weights[0]), None)
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    if bias is not None and bias.shape != linear.bias.shape:
        raise ClasslensError(
            f"head {str(path)!r} has a bias of shape {list(bias.shape)} for {weight.shape[0]} classes: give one number "
            "a class"
        )
    linear.load_state_dict({"weight": weight, **({} if bias is None else {"bias": bias})})
    return linear
