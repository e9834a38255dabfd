"""Class space: the model's own map from a token vector to class logits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from classlens.core.arguments import checked
from classlens.core.steps import Norm, Pool, Projection, Step, compute_dtype
from classlens.errors import ClasslensError

ClassOrWeights = Int[Tensor, " image"] | Float[Tensor, "image classes"]
"""A class for each image, or a weight for each class, such as 1 and -1 for a difference of two logits."""


@checked
@dataclass(frozen=True, eq=False)
class ClassSpace:
    """The class embedding with the norms before it: the map from a token to class logits.

    A single token is projected like the model's pooled vector: through ``before``, ``pool`` and ``after``, then with
    ``weight`` and ``bias``. Projection is in float32 at least, in float64 for a float64 model. After Vilas et al.,
    "Analyzing Vision Transformers for Image Classification in Class Embedding Space" (NeurIPS 2023).

    Args:
        before: steps of the tokens, before pooling.
        after: steps of the pooled vector, such as timm's ``fc_norm``.
        weight: the class embedding ``E``, ``[classes, width]``.
        bias: ``[classes]``, or None.
        pool: pooling of the tokens; None for their mean.

    Examples:
        >>> space = ClassSpace(before=(), after=(), weight=torch.tensor([[1.0, 0.0], [0.0, 2.0]]), bias=None)
        >>> space.project(torch.tensor([[3.0, 4.0]]))
        tensor([[3., 8.]])
    """

    before: tuple[Step, ...]
    after: tuple[Step, ...]
    weight: Float[Tensor, "classes width"]
    bias: Float[Tensor, " classes"] | None
    pool: Pool | None = None

    def _axis_sizes(self) -> dict[str, int]:
        """The width of a token is that of the first parameter that it meets."""
        weights = (getattr(step, "weight", None) for step in self.steps)
        first = next((weight for weight in weights if weight is not None), self.weight)
        return {"width": first.shape[-1], "classes": self.num_classes}

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of a single token before the class embedding, in their order."""
        return (*self.before, *(() if self.pool is None else (self.pool,)), *self.after)

    @property
    def num_classes(self) -> int:
        """Number of rows of ``weight``."""
        return self.weight.shape[0]

    @property
    def embedding(self) -> Float[Tensor, "classes width"]:
        """The class embedding in the width of the tokens: ``E``, or ``E @ W`` where a projection ``W`` comes first."""
        weight = self.weight
        for step in reversed(self.steps):
            if isinstance(step, Projection):
                weight = weight @ step.weight.to(weight.dtype)
        return weight

    def behind(self, step: Step) -> ClassSpace:
        """The same space with one more step before all others."""
        return replace(self, before=(step, *self.before))

    def _head(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Weight and bias in the precision of projection."""
        dtype = compute_dtype(dtype)
        return self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype)

    def project(self, tokens: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows classes"]:
        """Class logits of each token.

        Args:
            tokens: vectors of the residual stream or of a sublayer's output, ``[..., width]``.

        Returns:
            Logits, ``[..., classes]``.
        """
        weight, bias = self._head(tokens.dtype)
        return F.linear(self.normalize(tokens), weight, bias)

    def normalize(self, tokens: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows outer"]:
        """The input of the head for each token, ``[..., width]``."""
        x = tokens.to(compute_dtype(tokens.dtype))
        for step in self.steps:
            x = step(x)
        return x

    def pooled(self, tokens: Float[Tensor, "image pooled width"]) -> Float[Tensor, "image classes"]:
        """The model's own logits from the last hidden states of its pooled tokens."""
        return self.classify(self.head_input(tokens))

    def head_input(self, tokens: Float[Tensor, "image pooled width"]) -> Float[Tensor, "image outer"]:
        """The input of the head for pooled tokens."""
        x = tokens.to(compute_dtype(tokens.dtype))
        for step in self.before:
            x = step(x)
        x = x.mean(dim=1) if self.pool is None else self.pool.function(x)
        for step in self.after:
            x = step(x)
        return x

    def classify(self, inputs: Float[Tensor, "*rows outer"]) -> Float[Tensor, "*rows classes"]:
        """Class logits from inputs of the head."""
        width = self.weight.shape[1]
        if inputs.shape[-1:] != (width,):
            raise ClasslensError(
                f"inputs of shape {tuple(inputs.shape)} do not fit the head: give {width} in the last dim"
            )
        weight, bias = self._head(inputs.dtype)
        return F.linear(inputs, weight, bias)

    def vjp(
        self, tokens: Float[Tensor, "*rows width"], gradient: Float[Tensor, "*rows classes"]
    ) -> Float[Tensor, "*rows width"]:
        """The gradient with respect to ``tokens``, from a gradient with respect to their logits."""
        inputs, x = [], tokens.to(compute_dtype(tokens.dtype))
        for step in self.steps:
            inputs.append(x)
            x = step(x)
        pulled: Tensor = gradient @ self.weight.to(gradient.dtype)
        for step, x in zip(reversed(self.steps), reversed(inputs), strict=True):
            pulled = step.vjp(x, pulled)
        return pulled

    def frozen(
        self,
        tokens: Float[Tensor, "image pooled width"],
        target: ClassOrWeights,
        shares: Float[Tensor, "image pooled"] | None = None,
    ) -> tuple[Float[Tensor, "image width"], Float[Tensor, "image pooled"], Float[Tensor, " image"]]:
        """The logit as a linear function of the pooled tokens, with the scale of every norm frozen.

        ``logit = Σ_q weights[q] · (tokens[q] · direction) + constant``, exactly, for these tokens. A vector that is
        added to token ``q`` contributes ``weights[q] · (vector · direction)``.

        Args:
            tokens: the last hidden states of the pooled tokens, ``[image, pooled, width]``.
            target: a class for each image, ``[image]``, or weights of a sum of logits, ``[image, classes]``.
            shares: weights of the tokens in their pooled mean, 1 on average; equal ones when left out.

        Returns:
            ``direction`` ``[image, width]``, ``weights`` ``[image, pooled]`` and ``constant`` ``[image]``.

        Raises:
            ClasslensError: the head pools by attention, which is not linear.
        """
        weights, token_scales, pooled_scales = self._scales(tokens, shares)
        outer = weights.new_ones(len(weights), 1)
        weight, bias = self._head(tokens.dtype)
        direction = select_classes(weight, target)
        constant = weights.new_zeros(len(weights)) if bias is None else select_classes(bias, target)
        for step, scale in zip(reversed(self.after), reversed(pooled_scales), strict=True):
            constant = constant + _dot_bias(direction * outer, step)
            direction, outer = step.pull(direction), outer * scale
        direction = direction * outer
        for step, scale in zip(reversed(self.before), reversed(token_scales), strict=True):
            # A later norm scales the bias of an earlier one for each token; the mean keeps its share.
            constant = constant + _dot_bias(direction, step) * weights.sum(dim=1)
            direction, weights = step.pull(direction), weights * scale
        return direction, weights, constant

    def frozen_input(
        self, tokens: Float[Tensor, "image pooled width"]
    ) -> tuple[Float[Tensor, "outer width"], Float[Tensor, "image pooled"]]:
        """The input of the head as a linear function of the pooled tokens, with the scale of every norm frozen.

        A vector that is added to token ``q`` adds ``weights[q] · (matrix @ vector)``.

        Args:
            tokens: the last hidden states of the pooled tokens, ``[image, pooled, width]``.

        Returns:
            ``matrix`` ``[outer, width]``, the same for all images, and ``weights`` ``[image, pooled]``.

        Raises:
            ClasslensError: the head pools by attention, which is not linear.
        """
        weights, token_scales, pooled_scales = self._scales(tokens, None)
        for scale in (*token_scales, *pooled_scales):
            weights = weights * scale
        matrix = torch.eye(self.weight.shape[1], dtype=weights.dtype, device=weights.device)
        for step in (*reversed(self.after), *reversed(self.before)):
            matrix = step.pull(matrix)
        return matrix, weights

    def _scales(
        self, tokens: Float[Tensor, "image pooled width"], shares: Float[Tensor, "image pooled"] | None
    ) -> tuple[Float[Tensor, "image pooled"], list[Float[Tensor, "image pooled"]], list[Float[Tensor, "image 1"]]]:
        """Weights of the tokens in their mean, and the scales of the steps before and after it, for these tokens."""
        if self.pool is not None:
            self.pool.pull(tokens)
        x = tokens.to(compute_dtype(tokens.dtype))
        shares = x.new_ones(x.shape[:2]) if shares is None else shares.to(x.dtype)
        weights = shares / x.shape[1]
        token_scales, pooled_scales = [], []
        for step in self.before:
            token_scales.append(step.inverse_scale(x)[..., 0])
            x = step(x)
        x = (x * shares[..., None]).mean(dim=1)
        for step in self.after:
            pooled_scales.append(step.inverse_scale(x))
            x = step(x)
        return weights, token_scales, pooled_scales

    def fold(self) -> Folded | None:
        """The projection with its norm folded into one matrix; None for more than one map before ``E``.

        It is computed in float64 on the CPU, which is cheap, and not cached, so that it follows weights changed in
        place.
        """
        steps = self.steps
        norm = steps[0] if steps else None
        if len(steps) > 1 or not isinstance(norm, Norm | None):
            return None
        weight = _exact(self.weight)
        offset = weight.new_zeros(len(weight)) if self.bias is None else _exact(self.bias)
        if isinstance(norm, Norm):
            if norm.bias is not None:
                offset = offset + weight @ _exact(norm.bias)
            if norm.weight is not None:
                weight = weight * _exact(norm.weight)
            if norm.kind == "layer":
                weight = weight - weight.mean(dim=1, keepdim=True)
        dtype, device = compute_dtype(self.weight.dtype), self.weight.device
        return Folded(weight.T.to(dtype).contiguous().to(device), offset.to(dtype).to(device), norm)


@dataclass(frozen=True, eq=False)
class Folded:
    """``logits = (x @ matrix) / σ(x) + offset``: linear in the token before the division.

    The product of the residual stream is the sum of the products of its parts, so that of the four sites of a block
    only the two sublayer outputs need a matrix product.
    """

    matrix: Float[Tensor, "width classes"]
    offset: Float[Tensor, " classes"]
    norm: Norm | None

    def finish(
        self, product: Float[Tensor, "rows classes"], x: Float[Tensor, "rows width"], out: Float[Tensor, "rows classes"]
    ) -> Float[Tensor, "rows classes"]:
        """The logits of ``x`` from ``product = x @ matrix``, written to ``out``."""
        if self.norm is None:
            return torch.add(product, self.offset, out=out)
        return torch.addcmul(self.offset, product, self.norm.inverse_scale(x), out=out)


def select_classes(rows: Tensor, target: ClassOrWeights) -> Tensor:
    """The row (or number) of each image's class, or the weighted sum of all rows."""
    return target.to(rows.dtype) @ rows if target.is_floating_point() else rows[target]


def _exact(parameter: Tensor) -> Tensor:
    return parameter.detach().cpu().double()


def _dot_bias(direction: Float[Tensor, "image width"], step: Step) -> Float[Tensor, " image"]:
    if step.bias is None:
        return direction.new_zeros(len(direction))
    return direction @ step.bias.to(direction.dtype)
