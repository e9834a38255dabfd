"""timm's transformer blocks: a table from block class to the points of the block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from timm.layers import GluMlp, LayerScale, Mlp, RmsNorm, SwiGLU
from timm.layers.attention import Attention, AttentionRope
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models import beit, eva, vision_transformer_relpos
from timm.models.vision_transformer import Block, ParallelScalingBlock, ParallelThingsBlock, ResPostBlock
from torch import Tensor, nn
from torch.nn import functional as F

from classlens.core.attention import Branches, Output
from classlens.core.attention_rows import Scores, dot_products, projected_products, scaled_products
from classlens.core.steps import Norm, detached
from classlens.models.torch_layers import Refuse, as_it_is, norm_maps
from classlens.models.view import BlockView, Point


def describe_block(block: nn.Module, refuse: Refuse) -> BlockView:
    """Describe one block; calls ``refuse`` with the reason for an unsupported one."""
    describe = _BLOCKS.get(type(block))
    if describe is None:
        refuse(f"has blocks of type {type(block).__name__}, which are not supported")
    return describe(block, refuse)


def timm_norm_maps(module: nn.Module, refuse: Refuse) -> tuple[Norm, ...]:
    """A norm of torch or timm as the steps of a class space; none for an identity."""
    if isinstance(module, RmsNorm):  # not a subclass of torch's RMSNorm
        return (Norm("rms", detached(module.weight), None, module.eps),)
    return norm_maps(module, refuse, (nn.LayerNorm, nn.RMSNorm))


def _sequential(block: Any, refuse: Refuse, *, post: bool = False) -> BlockView:
    """Attention, then MLP, each with its norm before (or after) it and its own residual add."""
    attn, mlp = block.attn, block.mlp
    _check_attention(attn, refuse)
    _check_mlp(mlp, refuse)
    points = {
        "resid_pre": Point(block, "input"),
        # The input of the residual add passes the drop-path modules (identities in evaluation mode).
        "attn_out": Point(block.drop_path1),
        "mlp_out": Point(block.drop_path2),
        "resid_post": Point(block),
        "values": _values(attn),
        "attention": Point(attn.attn_drop),
        "attn_coefficients": Point(attn.proj, "input"),
        "mlp_coefficients": Point(mlp.fc2, "input"),
    }
    scores = _add_score_points(points, attn)
    if post:
        points |= {"attn_raw": Point(attn), "mlp_raw": Point(mlp)}
    outputs = {}
    for number, name, sublayer, project in ((1, "attn", attn, attn.proj), (2, "mlp", mlp, mlp.fc2)):
        inner = timm_norm_maps(getattr(sublayer, "norm", nn.Identity()), refuse)
        if inner:
            points[f"{name}_joined"] = Point(sublayer.norm, "input")
        after = timm_norm_maps(getattr(block, f"norm{number}"), refuse) if post else ()
        outputs[name] = Output(
            project.weight.detach(),
            detached(project.bias),
            scale=None if post else _layer_scale(block, number, refuse),
            norm=after[0] if after else None,
            inner=inner[0] if inner else None,
        )
    return BlockView(points=points, heads=attn.num_heads, scores=scores, **outputs)


def _parallel_scaling(block: Any, refuse: Refuse) -> BlockView:
    """Attention and MLP with one norm, one input projection and one residual add; a shared bias counts to the MLP."""
    gamma = _scale(block.ls, refuse)
    width = block.num_heads * block.head_dim
    joint = getattr(block, "out_proj", None)
    if joint is None:
        attn, mlp = block.attn_out_proj, block.mlp_out_proj
        outputs = {
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
        outputs = {
            "attn_out": Point(joint, "input", read=partial(_share, block.ls, attn_weight, None, slice(width))),
            "mlp_out": Point(joint, "input", read=partial(_share, block.ls, mlp_weight, mlp_bias, slice(width, None))),
            "attn_coefficients": _part_of_input(joint, slice(width)),
            "mlp_coefficients": _part_of_input(joint, slice(width, None)),
        }
    return BlockView(
        points={
            "resid_pre": Point(block, "input"),
            **outputs,
            "resid_post": Point(block),
            "values": Point(block.in_proj, read=partial(_joint_values, heads=block.num_heads, width=width)),
            "attention": Point(block.attn_drop),
            # Normalized before heads and tokens change places.
            "queries": Point(block.q_norm, read=_heads_second),
            "keys": Point(block.k_norm, read=_heads_second),
        },
        heads=block.num_heads,
        attn=Output(attn_weight, attn_bias, scale=gamma),
        mlp=Output(mlp_weight, mlp_bias, scale=gamma),
    )


def _parallel_things(block: Any, refuse: Refuse) -> BlockView:
    """Parallel attentions, then parallel MLPs; branches are summed, their heads concatenated."""
    for branch in block.attns:
        _check_attention(branch.attn, refuse)
    for branch in block.ffns:
        _check_mlp(branch.mlp, refuse)
    sublayers = [branch.attn for branch in block.attns] + [branch.mlp for branch in block.ffns]
    if any(timm_norm_maps(getattr(sublayer, "norm", nn.Identity()), refuse) for sublayer in sublayers):
        refuse("has norms within the branches of its parallel sublayers, which are not supported")
    values = [_values(branch.attn) for branch in block.attns]
    heads = tuple(branch.attn.num_heads for branch in block.attns)
    points: dict[str, Point] = {}
    if all(isinstance(branch.attn, Attention) for branch in block.attns):
        for name, norm in (("queries", "q_norm"), ("keys", "k_norm")):
            inputs = [Point(getattr(branch.attn, norm)) for branch in block.attns]
            points[name] = _merge(inputs, partial(torch.cat, dim=1), heads)
    return BlockView(
        points=points
        | {
            "resid_pre": Point(block, "input"),
            "attn_out": _merge([Point(branch) for branch in block.attns], _sum),
            "mlp_out": _merge([Point(branch) for branch in block.ffns], _sum),
            "resid_post": Point(block),
            "values": _merge(values, partial(torch.cat, dim=1)),
            "attention": _merge(
                [Point(branch.attn.attn_drop) for branch in block.attns],
                partial(torch.cat, dim=1),
                heads,
            ),
            "attn_coefficients": _concatenated_inputs([branch.attn.proj for branch in block.attns]),
            "mlp_coefficients": _concatenated_inputs([branch.mlp.fc2 for branch in block.ffns]),
        },
        heads=sum(heads),
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
# Softmax attention with an output projection `proj`, whose weights pass `attn_drop` while it is not fused.
_ATTENTION = frozenset(
    {Attention, AttentionRope, beit.Attention, eva.EvaAttention, vision_transformer_relpos.RelPosAttention}
)
# Hidden units, an optional norm, and an output projection `fc2`.
_MLPS = frozenset({Mlp, GluMlp, SwiGLU})


def _check_attention(attn: Any, refuse: Refuse) -> None:
    if type(attn) not in _ATTENTION:
        refuse(f"has attention of type {type(attn).__name__}, which is not plain softmax attention")
    if getattr(attn, "gate", None) is not None:
        refuse("gates its attention output before the projection, which is not supported")


def _check_mlp(mlp: Any, refuse: Refuse) -> None:
    if type(mlp) not in _MLPS or not isinstance(mlp.fc2, nn.Linear):
        refuse(f"has an MLP of type {type(mlp).__name__}, whose output projection is not supported")


def _layer_scale(block: Any, number: int, refuse: Refuse) -> Tensor | None:
    """LayerScale as a module ``ls1``, as a parameter ``gamma_1``, or none."""
    gamma = getattr(block, f"gamma_{number}", None)
    return detached(gamma) if gamma is not None else _scale(getattr(block, f"ls{number}", nn.Identity()), refuse)


def _scale(module: nn.Module, refuse: Refuse) -> Tensor | None:
    if isinstance(module, nn.Identity):
        return None
    if not isinstance(module, LayerScale):
        refuse(f"scales its sublayers with {type(module).__name__}, which is not supported")
    return module.gamma.detach()


def _branch(project: nn.Linear, scale: nn.Module, refuse: Refuse) -> Output:
    return Output(project.weight.detach(), detached(project.bias), scale=_scale(scale, refuse))


def _values(attn: Any) -> Point:
    """The values of attention, computed again where no module returns them with their bias."""
    if getattr(attn, "v_proj", None) is not None:
        groups = attn.num_heads // getattr(attn, "num_kv_heads", attn.num_heads)
        return Point(attn.v_proj, read=partial(_grouped_values, channels=attn.head_dim, groups=groups))
    if getattr(attn, "q_bias", None) is not None:
        return Point(attn, "input", read=partial(_values_with_bias, attn))
    return Point(attn.qkv, read=partial(_joint_values, heads=attn.num_heads, width=attn.proj.in_features))


def _grouped_values(values: Tensor, *, channels: int, groups: int) -> Tensor:
    """Values from a projection of their own; each of its heads serves a group of query heads."""
    heads: Tensor = values.unflatten(-1, (-1, channels)).transpose(1, 2)
    return heads.repeat_interleave(groups, dim=1) if groups > 1 else heads


def _values_with_bias(attn: Any, x: Tensor) -> Tensor:
    """Values of a joint projection whose biases are parameters of the attention module."""
    weight = attn.qkv.weight.detach()[-attn.proj.in_features :]
    values: Tensor = F.linear(x, weight, attn.v_bias.detach()).unflatten(-1, (attn.num_heads, -1))
    return values.transpose(1, 2)


def _joint_values(joint: Tensor, *, heads: int, width: int) -> Tensor:
    """The values at the end of a joint projection."""
    values: Tensor = joint[..., -width:].unflatten(-1, (heads, -1))
    return values.transpose(1, 2)


def _add_score_points(points: dict[str, Point], attn: Any) -> Scores:
    """Add the points that the scores of attention are computed from; returns that computation."""
    if isinstance(attn, beit.Attention):  # no module returns queries and keys with their bias
        points["attn_in"] = Point(attn, "input", read=as_it_is)
        points["attn_bias"] = Point(attn, "input", read=partial(_beit_bias, attn), argument="shared_rel_pos_bias")
        return partial(_beit_scores, attn)
    points |= {"queries": Point(attn.q_norm), "keys": Point(attn.k_norm)}
    if isinstance(attn, vision_transformer_relpos.RelPosAttention):
        points["attn_bias"] = Point(attn, "input", read=partial(_relative_bias, attn), argument="shared_rel_pos")
    if isinstance(attn, AttentionRope | eva.EvaAttention):
        points["rotation"] = Point(attn, "input", read=as_it_is, argument="rope")
        return partial(_rotated_scores, attn)
    return dot_products


def _relative_bias(attn: Any, shared: Tensor | None) -> Tensor | None:
    return shared if attn.rel_pos is None else attn.rel_pos.get_bias()


def _beit_bias(attn: Any, shared: Tensor | None) -> Tensor | None:
    if attn.relative_position_bias_table is None:
        return shared
    bias: Tensor = attn._get_rel_pos_bias()
    return bias if shared is None else bias + shared


def _beit_scores(attn: Any, passed: Mapping[str, Tensor], queries: Tensor) -> Tensor:
    query, key, _ = attn.qkv.weight.detach().chunk(3)
    return projected_products(
        passed["attn_in"],
        queries,
        heads=attn.num_heads,
        query=(query, detached(attn.q_bias)),
        key=key,
        bias=passed.get("attn_bias"),
    )


def _rotated_scores(attn: Any, passed: Mapping[str, Tensor], queries: Tensor) -> Tensor:
    """Dot products of queries and keys that are turned by their positions, but for prefix tokens."""
    rotation, prefix = passed.get("rotation"), attn.num_prefix_tokens
    if rotation is None:
        return dot_products(passed, queries)

    def turned(x: Tensor, tokens: Tensor) -> Tensor:
        chosen, image = x[:, :, tokens], tokens >= prefix
        angles = rotation[..., tokens[image] - prefix, :]
        chosen[:, :, image] = apply_rot_embed_cat(chosen[:, :, image], angles, half=attn.rotate_half).to(x)
        return chosen

    keys = turned(passed["keys"], torch.arange(passed["keys"].shape[2], device=queries.device))
    return scaled_products(turned(passed["queries"], queries), keys, None, queries)


def _heads_second(x: Tensor) -> Tensor:
    return x.transpose(1, 2)


def _scaled(scale: nn.Module, x: Tensor) -> Tensor:
    return x * scale.gamma if isinstance(scale, LayerScale) else x


def _part_of_input(joint: nn.Module, part: slice) -> Point:
    return Point(joint, "input", read=partial(_read_part, part), write=partial(_write_part, part))


def _read_part(part: slice, x: Tensor) -> Tensor:
    return x[..., part]


def _write_part(part: slice, x: Tensor, new: Tensor) -> Tensor:
    x = x.clone()
    x[..., part] = new
    return x


def _share(scale: nn.Module, weight: Tensor, bias: Tensor | None, inputs: slice, x: Tensor) -> Tensor:
    """The residual add of some inputs of a joint output projection."""
    return _scaled(scale, F.linear(x[..., inputs], weight, bias))


def _merge(points: list[Point], join: Callable[[list[Tensor]], Tensor], shares: tuple[int, ...] = ()) -> Point:
    """Points of the branches as one point; they differ in their module alone."""
    first, *others = points
    assert all(point.end == first.end for point in others)
    return Point(first.module, first.end, first.read, tuple(point.module for point in others), join, shares)


def _sum(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(dim=0)


def _concatenated_inputs(projections: list[Any]) -> Point:
    """The inputs of the last projections of parallel sublayers."""
    points = [Point(projection, "input") for projection in projections]
    return _merge(points, partial(torch.cat, dim=-1), tuple(projection.in_features for projection in projections))
