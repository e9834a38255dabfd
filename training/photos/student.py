"""The student of the photo model, cut out of its teacher: a part of the blocks, a part of each MLP's units."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor

Model = Any
"""timm's ``VisionTransformer``; its parts are no types of their own."""

# Block of the teacher that each block of the student starts from, and the teacher's block whose state it is to reach:
# one block stands for two where a block is left out.
BLOCKS = (0, 1, 3, 4, 6, 8, 10, 11)
REACHED = (0, 2, 3, 5, 7, 9, 10, 11)
_RIDGE = 1e-3
"""Ridge of the least squares, as a share of the mean square of a unit's coefficient."""


def tokens(model: Model, pixels: Tensor, kept: Tensor | None = None) -> list[Tensor]:
    """States ``[batch, 1 + tokens, dim]`` after every block, of ``[CLS]`` and image tokens ``[batch, kept]``."""
    state = model._pos_embed(model.patch_embed(pixels))
    if kept is not None:
        image = state[:, 1:].gather(1, kept[..., None].expand(-1, -1, state.shape[-1]))
        state = torch.cat([state[:, :1], image], dim=1)
    states = []
    for block in model.blocks:
        state = block(state)
        states.append(state)
    return states


def logits(model: Model, state: Tensor) -> Tensor:
    """Logits ``[batch, classes]`` of the state after the last block."""
    output: Tensor = model.head(model.norm(state[:, 0]))
    return output


@torch.no_grad()
def start(student: Model, teacher: Model, pixels: Tensor, shrunk: Tensor) -> None:
    """Give ``student`` the teacher's weights: embeddings resampled, ``BLOCKS`` with their strongest MLP units.

    A unit's strength is the size of its coefficient times the norm of what it writes. The output matrix of each MLP is
    then the least-squares solution for which the student, from its own states, comes nearest to the states ``REACHED``.

    Args:
        student: the model to be trained.
        teacher: the model it is cut out of.
        pixels: photos ``[batch, 3, height, width]`` of the student.
        shrunk: the same photos at the size of the teacher.
    """
    wanted = tokens(teacher, shrunk)
    source, state = teacher.state_dict(), student.state_dict()
    patch = list(student.patch_embed.patch_size)
    state["patch_embed.proj.weight"] = resample_patch_embed(source["patch_embed.proj.weight"], patch)
    state["patch_embed.proj.bias"] = source["patch_embed.proj.bias"]
    state["pos_embed"] = source["pos_embed"]
    if source["pos_embed"].shape != state["pos_embed"].shape:
        state["pos_embed"] = resample_abs_pos_embed(source["pos_embed"], list(student.patch_embed.grid_size))
    for name in ("cls_token", "norm.weight", "norm.bias", "head.weight", "head.bias"):
        state[name] = source[name]
    student.load_state_dict(state)
    current = student._pos_embed(student.patch_embed(pixels))
    for i, (block, reached) in enumerate(zip(BLOCKS, REACHED, strict=True)):
        ours, theirs = student.blocks[i], teacher.blocks[block]
        for part in ("norm1", "attn", "norm2"):
            getattr(ours, part).load_state_dict(getattr(theirs, part).state_dict())
        ours.attn.proj.weight.mul_(theirs.ls1.gamma[:, None])  # the student has no LayerScale
        ours.attn.proj.bias.mul_(theirs.ls1.gamma)
        middle = current + ours.attn(ours.norm1(current))
        coefficients = theirs.mlp.act(theirs.mlp.fc1(ours.norm2(middle))).flatten(0, 1)
        strength = coefficients.square().mean(0).sqrt() * (theirs.mlp.fc2.weight * theirs.ls2.gamma[:, None]).norm(
            dim=0
        )
        kept = strength.topk(len(ours.mlp.fc1.bias)).indices.sort().values
        ours.mlp.fc1.weight.copy_(theirs.mlp.fc1.weight[kept])
        ours.mlp.fc1.bias.copy_(theirs.mlp.fc1.bias[kept])
        weights, bias = least_squares(coefficients[:, kept], (wanted[reached] - middle).flatten(0, 1))
        ours.mlp.fc2.weight.copy_(weights.T)
        ours.mlp.fc2.bias.copy_(bias)
        current = middle + ours.mlp(ours.norm2(middle))


@torch.no_grad()
def refit_head(student: Model, batches: Iterable[Tensor], labels: Tensor, strength: float) -> None:
    """Replace the head by the logistic regression of labels ``[n]`` on what it reads of photos, with all their tokens.

    Args:
        student: the trained model.
        batches: photos ``[batch, 3, height, width]`` in the order of ``labels``.
        labels: class of each photo.
        strength: inverse of the L2 penalty, ``C`` of scikit-learn.
    """
    student.eval()
    features = torch.cat([student.norm(tokens(student, pixels)[-1][:, 0]) for pixels in batches])
    fitted = LogisticRegression(C=strength, max_iter=2000).fit(features.numpy(), labels.numpy())
    student.head.weight.copy_(torch.from_numpy(fitted.coef_))
    student.head.bias.copy_(torch.from_numpy(fitted.intercept_))


def least_squares(inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Weights ``[in, out]`` and bias ``[out]`` of the ridge regression of ``outputs`` on ``inputs``, float64 inside."""
    mean_in, mean_out = inputs.mean(0), outputs.mean(0)
    centered = (inputs - mean_in).double()
    gram = centered.T @ centered
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    weights = torch.linalg.solve(gram, centered.T @ (outputs - mean_out).double()).float()
    return weights, mean_out - mean_in @ weights
