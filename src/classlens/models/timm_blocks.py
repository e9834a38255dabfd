"""timm's transformer blocks, as a table from their classes: what passes where in each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timm.layers import GluMlp, LayerScale, Mlp, RmsNorm, SwiGLU
from timm.layers.attention import Attention, AttentionRope
from timm.models import beit, eva, vision_transformer_relpos
from timm.models.vision_transformer import Block, ParallelScalingBlock, ParallelThingsBlock, ResPostBlock
from torch import Tensor, nn
from torch.nn import functional as F

from classlens.core.attention import Branches, Output
from classlens.core.maps import Norm, detached
from classlens.models.torch_layers import Refuse
from classlens.models.view import BlockView, Point


def block_view(block: nn.Module, refuse: Refuse) -> BlockView:
    """Describe one block; ``refuse`` is called with the reason for one that is not read."""
    read = _BLOCKS.get(type(block))
    if read is None:
        refuse(f"has blocks of type {type(block).__name__}, which are not read")
    return read(block, refuse)


def norms(module: nn.Module, refuse: Refuse) -> tuple[Norm, ...]:
    """A norm as a step of a class space; none for an identity."""
    if isinstance(module, nn.Identity):
        return ()
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return (Norm.of(module),)
    if isinstance(module, RmsNorm):  # timm's own, which is none of torch's
        return (Norm("rms", detached(module.weight), None, module.eps),)
    refuse(f"normalizes with {type(module).__name__}; only LayerNorm and RMSNorm are read")


def _sequential(block: Any, refuse: Refuse, *, post: bool = False) -> BlockView:
    """Attention, then MLP, each with its norm before (or after) it and its own residual add."""
    attn, mlp = block.attn, block.mlp
    _check_attention(attn, refuse)
    _check_mlp(mlp, refuse)
    points = {
        "resid_pre": Point(block, "input"),
        # The drop-path modules (identities when evaluating) pass exactly what is added to the residual stream.
        "attn_out": Point(block.drop_path1),
        "mlp_out": Point(block.drop_path2),
        "resid_post": Point(block),
        "values": _values(attn),
        "attention": Point(attn.attn_drop),
        "attn_coefficients": Point(attn.proj, "input"),
        "mlp_coefficients": Point(mlp.fc2, "input"),
    }
    if post:
        points |= {"attn_raw": Point(attn), "mlp_raw": Point(mlp)}
    outputs = {}
    for number, name, sublayer, project in ((1, "attn", attn, attn.proj), (2, "mlp", mlp, mlp.fc2)):
        inner = norms(getattr(sublayer, "norm", nn.Identity()), refuse)
        if inner:
            points[f"{name}_joined"] = Point(sublayer.norm, "input")
        after = norms(getattr(block, f"norm{number}"), refuse) if post else ()
        outputs[name] = Output(
            project.weight.detach(),
            detached(project.bias),
            scale=None if post else _layer_scale(block, number, refuse),
            norm=after[0] if after else None,
            inner=inner[0] if inner else None,
        )
    return BlockView(points=points, heads=attn.num_heads, **outputs)


def _parallel_scaling(block: Any, refuse: Refuse) -> BlockView:
    """Attention and MLP of one norm, one input projection and one residual add; a shared bias counts to the MLP."""
    gamma = _scale(block.ls, refuse)
    width = block.num_heads * block.head_dim
    joint = getattr(block, "out_proj", None)
    if joint is None:
        attn, mlp = block.attn_out_proj, block.mlp_out_proj
        out = {
            "attn_out": Point(attn, read=partial(_scaled, block.ls)),
            "mlp_out": Point(mlp, read=partial(_scaled, block.ls)),
            "attn_coefficients": Point(attn, "input"),
            "mlp_coefficients": Point(mlp, "input"),
        }
        attn_bias, mlp_bias = detached(attn.bias), detached(mlp.bias)
        attn_weight, mlp_weight = attn.weight.detach(), mlp.weight.detach()
    else:
        attn_bias, mlp_bias = None, detached(joint.bias)
        attn_weight, mlp_weight = joint.weight.detach().split([width, joint.in_features - width], dim=1)
        out = {
            "attn_out": Point(joint, "input", read=partial(_share, block.ls, attn_weight, None, slice(width))),
            "mlp_out": Point(joint, "input", read=partial(_share, block.ls, mlp_weight, mlp_bias, slice(width, None))),
            "attn_coefficients": _some_inputs(joint, slice(width)),
            "mlp_coefficients": _some_inputs(joint, slice(width, None)),
        }
    return BlockView(
        points={
            "resid_pre": Point(block, "input"),
            **out,
            "resid_post": Point(block),
            "values": Point(block.in_proj, read=partial(_last_part, heads=block.num_heads, width=width)),
            "attention": Point(block.attn_drop),
        },
        heads=block.num_heads,
        attn=Output(attn_weight, attn_bias, scale=gamma),
        mlp=Output(mlp_weight, mlp_bias, scale=gamma),
    )


def _parallel_things(block: Any, refuse: Refuse) -> BlockView:
    """Several attentions, then several MLPs, side by side; the branches are summed, their heads put in a row."""
    for branch in block.attns:
        _check_attention(branch.attn, refuse)
    for branch in block.ffns:
        _check_mlp(branch.mlp, refuse)
    sublayers = [branch.attn for branch in block.attns] + [branch.mlp for branch in block.ffns]
    if any(norms(getattr(part, "norm", nn.Identity()), refuse) for part in sublayers):
        refuse("has norms within the branches of its parallel sublayers, which are not read")
    values = [_values(branch.attn) for branch in block.attns]
    return BlockView(
        points={
            "resid_pre": Point(block, "input"),
            "attn_out": _joined([Point(branch) for branch in block.attns], _sum),
            "mlp_out": _joined([Point(branch) for branch in block.ffns], _sum),
            "resid_post": Point(block),
            "values": _joined(values, _heads_in_a_row),
            "attention": _joined(
                [Point(branch.attn.attn_drop) for branch in block.attns],
                _heads_in_a_row,
                tuple(branch.attn.num_heads for branch in block.attns),
            ),
            "attn_coefficients": _inputs_in_a_row([branch.attn.proj for branch in block.attns]),
            "mlp_coefficients": _inputs_in_a_row([branch.mlp.fc2 for branch in block.ffns]),
        },
        heads=sum(branch.attn.num_heads for branch in block.attns),
        attn=Branches(tuple(_branch(branch.attn.proj, branch.ls, refuse) for branch in block.attns)),
        mlp=Branches(tuple(_branch(branch.mlp.fc2, branch.ls, refuse) for branch in block.ffns)),
    )


_BLOCKS: dict[type[nn.Module], Callable[[Any, Refuse], BlockView]] = {
    Block: _sequential,
    beit.Block: _sequential,
    eva.EvaBlock: _sequential,
    vision_transformer_relpos.RelPosBlock: _sequential,
    ResPostBlock: partial(_sequential, post=True),
    eva.EvaBlockPostNorm: partial(_sequential, post=True),
    vision_transformer_relpos.ResPostRelPosBlock: partial(_sequential, post=True),
    ParallelScalingBlock: _parallel_scaling,
    ParallelThingsBlock: _parallel_things,
}
# Softmax attention with an output projection `proj`, its weights passing `attn_drop` where it is not fused.
_ATTENTION = frozenset(
    {Attention, AttentionRope, beit.Attention, eva.EvaAttention, vision_transformer_relpos.RelPosAttention}
)
# Hidden units, then perhaps a norm, then an output projection `fc2`.
_MLPS = frozenset({Mlp, GluMlp, SwiGLU})


def _check_attention(attn: Any, refuse: Refuse) -> None:
    if type(attn) not in _ATTENTION:
        refuse(f"has attention of type {type(attn).__name__}, which is not plain softmax attention")
    if getattr(attn, "gate", None) is not None:
        refuse("gates its attention output before the projection, which is not read")


def _check_mlp(mlp: Any, refuse: Refuse) -> None:
    if type(mlp) not in _MLPS or not isinstance(mlp.fc2, nn.Linear):
        refuse(f"has an MLP of type {type(mlp).__name__}, whose output projection is not read")


def _layer_scale(block: Any, number: int, refuse: Refuse) -> Tensor | None:
    """LayerScale as a module ``ls1``, as a parameter ``gamma_1``, or none."""
    gamma = getattr(block, f"gamma_{number}", None)
    return detached(gamma) if gamma is not None else _scale(getattr(block, f"ls{number}", nn.Identity()), refuse)


def _scale(module: nn.Module, refuse: Refuse) -> Tensor | None:
    if isinstance(module, nn.Identity):
        return None
    if not isinstance(module, LayerScale):
        refuse(f"scales its sublayers with {type(module).__name__}, which is not read")
    return module.gamma.detach()


def _branch(project: nn.Linear, scale: nn.Module, refuse: Refuse) -> Output:
    return Output(project.weight.detach(), detached(project.bias), scale=_scale(scale, refuse))


def _values(attn: Any) -> Point:
    """Where the values of attention pass; where no module gives them with their bias, they are computed once more."""
    if getattr(attn, "v_proj", None) is not None:
        groups = attn.num_heads // getattr(attn, "num_kv_heads", attn.num_heads)
        return Point(attn.v_proj, read=partial(_separate, channels=attn.head_dim, groups=groups))
    if getattr(attn, "q_bias", None) is not None:
        return Point(attn, "input", read=partial(_with_own_bias, attn))
    return Point(attn.qkv, read=partial(_last_part, heads=attn.num_heads, width=attn.proj.in_features))


def _separate(values: Tensor, *, channels: int, groups: int) -> Tensor:
    """A value projection of its own, each of its heads serving a group of query heads."""
    heads: Tensor = values.unflatten(-1, (-1, channels)).transpose(1, 2)
    return heads.repeat_interleave(groups, dim=1) if groups > 1 else heads.contiguous()


def _with_own_bias(attn: Any, x: Tensor) -> Tensor:
    weight = attn.qkv.weight.detach()[-attn.proj.in_features :]
    values: Tensor = F.linear(x, weight, attn.v_bias.detach()).unflatten(-1, (attn.num_heads, -1))
    return values.transpose(1, 2).contiguous()


def _last_part(joint: Tensor, *, heads: int, width: int) -> Tensor:
    """The values at the end of a joint projection; copied, to let the rest of it go."""
    values: Tensor = joint[..., -width:].unflatten(-1, (heads, -1))
    return values.transpose(1, 2).contiguous()


def _scaled(scale: nn.Module, x: Tensor) -> Tensor:
    return x * scale.gamma if isinstance(scale, LayerScale) else x


def _some_inputs(joint: nn.Module, part: slice) -> Point:
    return Point(joint, "input", read=partial(_inputs, part), write=partial(_with_inputs, part))


def _inputs(part: slice, x: Tensor) -> Tensor:
    return x[..., part]


def _with_inputs(part: slice, x: Tensor, new: Tensor) -> Tensor:
    x = x.clone()
    x[..., part] = new
    return x


def _share(scale: nn.Module, weight: Tensor, bias: Tensor | None, inputs: slice, x: Tensor) -> Tensor:
    """What some inputs of a joint output projection add to the residual stream."""
    return _scaled(scale, F.linear(x[..., inputs], weight, bias))


def _joined(points: list[Point], join: Callable[[list[Tensor]], Tensor], shares: tuple[int, ...] = ()) -> Point:
    """Points of the branches as one; they are alike but for their module."""
    first, *others = points
    assert all(point.end == first.end for point in others)
    return Point(first.module, first.end, first.read, tuple(point.module for point in others), join, shares)


def _sum(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(dim=0)


def _heads_in_a_row(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts, dim=1)


def _inputs_in_a_row(projections: list[Any]) -> Point:
    """What enters the last projections of parallel sublayers."""
    points = [Point(projection, "input") for projection in projections]
    return _joined(points, _in_a_row, tuple(projection.in_features for projection in projections))


def _in_a_row(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts, dim=-1)
