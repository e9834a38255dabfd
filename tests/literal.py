"""The slow twin: timm's own modules called one by one, autograd and loops, to hold the closed forms against.

Nothing here imports classlens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

States = dict[str, list[Tensor]]


def is_post_norm(block: nn.Module) -> bool:
    return type(block).__name__ == "ResPostBlock"


def attention_sublayer(block: Any, x: Tensor) -> Tensor:
    """What timm's block adds to the residual stream for attention, with the block's own modules."""
    added: Tensor = block.norm1(block.attn(x)) if is_post_norm(block) else block.ls1(block.attn(block.norm1(x)))
    return added


def mlp_sublayer(block: Any, x: Tensor) -> Tensor:
    """The same for the MLP; ``x`` is the stream after attention."""
    added: Tensor = block.norm2(block.mlp(x)) if is_post_norm(block) else block.ls2(block.mlp(block.norm2(x)))
    return added


@torch.no_grad()
def states(model: Any, pixels: Tensor) -> States:
    """Every site of every block, ``[image, token, width]``."""
    x = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(pixels))))
    found: States = {"embed": [x]}
    for block in model.blocks:
        attn = attention_sublayer(block, x)
        middle = x + attn
        mlp = mlp_sublayer(block, middle)
        after = middle + mlp
        sites = {"resid_pre": x, "attn_out": attn, "resid_mid": middle, "mlp_out": mlp, "resid_post": after}
        for site, state in sites.items():
            found.setdefault(site, []).append(state)
        x = after
    return found


def class_logits(model: Any, x: Tensor) -> Tensor:
    """The class space of a token, from the model's own modules."""
    logits: Tensor = model.head(model.fc_norm(model.norm(x)))
    return logits


def loss_of(logits: Tensor, target: Tensor, loss: str) -> Tensor:
    """The loss that is differentiated, summed over images: written out from its definition."""
    if loss == "cross_entropy":
        return F.cross_entropy(logits, target, reduction="sum")
    if loss == "double_softmax":
        return F.cross_entropy(F.softmax(logits, dim=-1), target, reduction="sum")
    if loss == "logit":
        return -logits[torch.arange(len(logits)), target].sum()
    raise KeyError(loss)


@contextmanager
def unfused(model: Any) -> Iterator[None]:
    """Attention in steps, for the duration."""
    modules = [module for module in model.blocks.modules() if hasattr(module, "fused_attn")]
    flags = [module.fused_attn for module in modules]
    for module in modules:
        module.fused_attn = False
    try:
        yield
    finally:
        for module, flag in zip(modules, flags, strict=True):
            module.fused_attn = flag


def attention_gradient(
    model: Any, pixels: Tensor, target: Tensor, *, loss: str, pooled: tuple[int, ...], image_tokens: slice
) -> Tensor:
    """``-∂ℓ/∂A`` by autograd, one block and query at a time: ``[image, block, head, image token]``."""
    pre = states(model, pixels)["resid_pre"]
    result = []
    with unfused(model), torch.enable_grad():
        for block, x in zip(model.blocks, pre, strict=True):
            gradients = []
            for query in pooled:
                leaves: list[Tensor] = []

                def as_leaf(_: nn.Module, __: Any, weights: Tensor, kept: list[Tensor] = leaves) -> Tensor:
                    kept.append(weights.detach().requires_grad_())
                    return kept[-1]

                handle = block.attn.attn_drop.register_forward_hook(as_leaf)
                added = attention_sublayer(block, x)
                handle.remove()
                (leaf,) = leaves
                (gradient,) = torch.autograd.grad(loss_of(class_logits(model, added[:, query]), target, loss), leaf)
                others = torch.arange(x.shape[1]) != query
                assert not gradient[:, :, others].any(), "a query's loss depends on its own attention row alone"
                gradients.append(-gradient[:, :, query, image_tokens])
            result.append(sum(gradients) / len(gradients))
    return torch.stack([torch.as_tensor(block) for block in result], dim=1)


def attention_parts(block: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Attention weights ``[image, head, query, token]`` and values ``[image, head, token, channel]``, written out."""
    attn = block.attn
    y = x if is_post_norm(block) else block.norm1(x)
    joint = y @ attn.qkv.weight.T
    if attn.qkv.bias is not None:
        joint = joint + attn.qkv.bias
    queries, keys, values = joint.chunk(3, dim=-1)
    heads = []
    for part in (queries, keys, values):
        heads.append(torch.stack(part.chunk(attn.num_heads, dim=-1), dim=1))
    query, key, value = heads
    scores = attn.q_norm(query) @ attn.k_norm(key).transpose(-2, -1) / query.shape[-1] ** 0.5
    weights = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
    return weights, value


class FrozenNorm:
    """A norm module whose mean and weight act on whatever comes, but whose scale was measured once, on ``x``."""

    def __init__(self, module: Any, x: Tensor) -> None:
        self.module = module
        if isinstance(module, nn.Identity):
            return
        self.center = isinstance(module, nn.LayerNorm)
        eps = module.eps if module.eps is not None else torch.finfo(x.dtype).eps
        second = x.var(dim=-1, unbiased=False, keepdim=True) if self.center else (x**2).mean(dim=-1, keepdim=True)
        self.sigma = (second + eps).sqrt()
        torch.testing.assert_close(self(x), module(x), msg="the frozen norm is the norm where it was frozen")

    def __call__(self, x: Tensor) -> Tensor:
        """Affine in ``x``."""
        if isinstance(self.module, nn.Identity):
            return x
        y = (x - x.mean(dim=-1, keepdim=True) if self.center else x) / self.sigma
        y = y if self.module.weight is None else y * self.module.weight
        return y if getattr(self.module, "bias", None) is None else y + self.module.bias

    def linear(self, x: Tensor) -> Tensor:
        """Without its constant."""
        return self(x) - self(torch.zeros_like(x))


def _bias(linear: Any, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if linear.bias is None else linear.bias.expand_as(like)


def _frozen_end(
    model: Any, sites: States, target: Tensor, pooled: tuple[int, ...]
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """What vectors added to the last tokens are worth in the logit, and its constant, with the last norms frozen."""
    last = sites["resid_post"][-1][:, list(pooled)]
    norm = FrozenNorm(model.norm, last)
    fc_norm = FrozenNorm(model.fc_norm, model.norm(last).mean(dim=1))

    def end(tokens: Tensor) -> Tensor:
        logits: Tensor = model.head(fc_norm(norm(tokens).mean(dim=1)))
        return logits[torch.arange(len(logits)), target]

    constant = end(torch.zeros_like(last))
    return lambda added: end(added[:, list(pooled)]) - constant, constant


@torch.no_grad()
def attribution(model: Any, pixels: Tensor, target: Tensor, *, pooled: tuple[int, ...]) -> dict[str, Tensor]:
    """What each part adds to the logit: every contribution is sent through the frozen end of the model on its own."""
    sites = states(model, pixels)
    worth, constant = _frozen_end(model, sites, target, pooled)
    bias = constant.clone()
    attention, mlps = [], []
    for number, block in enumerate(model.blocks):
        pre, middle = sites["resid_pre"][number], sites["resid_mid"][number]
        post = is_post_norm(block)
        after_attn = FrozenNorm(block.norm1, block.attn(pre)).linear if post else block.ls1
        after_mlp = FrozenNorm(block.norm2, block.mlp(middle)).linear if post else block.ls2
        weights, values = attention_parts(block, pre)
        channels = values.shape[-1]
        heads = []
        for head in range(values.shape[1]):
            columns = block.attn.proj.weight[:, head * channels : (head + 1) * channels]
            tokens = []
            for token in range(values.shape[2]):
                # What this token adds to every query through this head.
                added = weights[:, head, :, token, None] * (values[:, head, token] @ columns.T)[:, None]
                tokens.append(worth(after_attn(added)))
            heads.append(torch.stack(tokens, dim=-1))
        attention.append(torch.stack(heads, dim=1))
        hidden = block.mlp.act(block.mlp.fc1(middle if post else block.norm2(middle)))
        mlps.append(worth(after_mlp(hidden @ block.mlp.fc2.weight.T)))
        for module, after in ((block.attn.proj, after_attn), (block.mlp.fc2, after_mlp)):
            bias = bias + worth(after(_bias(module, pre)))
        for module in (block.norm1, block.norm2) if post else ():
            bias = bias + (worth(module.bias.expand_as(pre)) if getattr(module, "bias", None) is not None else 0)
    return {
        "embed": worth(sites["embed"][0]),
        "attention_token": torch.stack(attention, dim=1),
        "mlp": torch.stack(mlps, dim=1),
        "bias": bias,
    }


@torch.no_grad()
def units(model: Any, pixels: Tensor, target: Tensor, *, pooled: tuple[int, ...]) -> dict[str, Tensor]:
    """Contributions of channels of the heads and of hidden units to the logit, sent through the frozen end one by one.

    ``[image, block, unit]`` of ``attn`` and ``mlp``, and ``[image, block]`` of their biases.
    """
    sites = states(model, pixels)
    worth, _ = _frozen_end(model, sites, target, pooled)
    parts: dict[str, list[Tensor]] = {"attn": [], "attn_bias": [], "mlp": [], "mlp_bias": []}
    for number, block in enumerate(model.blocks):
        pre, middle = sites["resid_pre"][number], sites["resid_mid"][number]
        post = is_post_norm(block)
        weights, values = attention_parts(block, pre)
        joined = torch.cat([weights[:, head] @ values[:, head] for head in range(values.shape[1])], dim=-1)
        hidden = block.mlp.act(block.mlp.fc1(middle if post else block.norm2(middle)))
        rows: tuple[tuple[Any, ...], ...] = (
            ("attn", joined, block.attn.proj, block.attn(pre), block.norm1, getattr(block, "ls1", None)),
            ("mlp", hidden, block.mlp.fc2, block.mlp(middle), block.norm2, getattr(block, "ls2", None)),
        )
        for name, coefficients, projection, output, norm, scale in rows:
            after = FrozenNorm(norm, output).linear if post else scale
            each = [
                worth(after(coefficients[..., unit, None] * projection.weight[:, unit]))
                for unit in range(coefficients.shape[-1])
            ]
            bias = worth(after(_bias(projection, pre)))
            if post and getattr(norm, "bias", None) is not None:
                bias = bias + worth(norm.bias.expand_as(pre))
            parts[name].append(torch.stack(each, dim=-1))
            parts[f"{name}_bias"].append(bias)
    return {name: torch.stack(blocks, dim=1) for name, blocks in parts.items()}
