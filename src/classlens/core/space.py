"""Class space: the map from a token vector to class logits that the model itself uses at its end."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from classlens.core.maps import Map, Norm, Pool, Projection, compute_dtype

ClassOrWeights = Int[Tensor, " image"] | Float[Tensor, "image classes"]
"""A class for each image, or a weight for each class, such as those of a difference."""


@dataclass(frozen=True, eq=False)
class ClassSpace:
    """The class embedding with the norms before it.

        space = ClassSpace(before=(final_norm,), after=(), weight=head.weight, bias=head.bias)
        logits = space.project(tokens)            # [..., width] -> [..., classes]

    ``before`` acts on tokens, ``after`` on the pooled vector (``fc_norm``); one token is projected through both
    (design: class space of one token). Projection is in float32 whatever dtype the model runs in, float64 for a
    float64 model.
    """

    before: tuple[Map, ...]
    after: tuple[Map, ...]
    weight: Float[Tensor, "classes width"]
    bias: Float[Tensor, " classes"] | None
    pool: Pool | None = None
    """How tokens become one vector where that is not their mean."""

    @property
    def maps(self) -> tuple[Map, ...]:
        """What one token passes before the class embedding."""
        return (*self.before, *(() if self.pool is None else (self.pool,)), *self.after)

    @property
    def num_classes(self) -> int:
        return self.weight.shape[0]

    @property
    def embedding(self) -> Float[Tensor, "classes width"]:
        """The class embedding in the width of the tokens: ``E``, or ``E @ W`` where a projection ``W`` comes first."""
        weight = self.weight
        for step in reversed(self.maps):
            if isinstance(step, Projection):
                weight = weight @ step.weight.to(weight.dtype)
        return weight

    def behind(self, step: Map) -> ClassSpace:
        """The same space for tokens that pass ``step`` first."""
        return replace(self, before=(step, *self.before))

    def _in(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        dtype = compute_dtype(dtype)
        return self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype)

    def project(self, tokens: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows classes"]:
        """Class logits of each token."""
        weight, bias = self._in(tokens.dtype)
        return F.linear(self.normalize(tokens), weight, bias)

    def normalize(self, tokens: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """Each token as the head would see it."""
        x = tokens.to(compute_dtype(tokens.dtype))
        for step in self.maps:
            x = step(x)
        return x

    def pooled(self, tokens: Float[Tensor, "image pooled width"]) -> Float[Tensor, "image classes"]:
        """The model's own logits from the last hidden states of the tokens it pools (law 2)."""
        weight, bias = self._in(tokens.dtype)
        x = tokens.to(compute_dtype(tokens.dtype))
        for norm in self.before:
            x = norm(x)
        x = x.mean(dim=1) if self.pool is None else self.pool.function(x)
        for norm in self.after:
            x = norm(x)
        return F.linear(x, weight, bias)

    def vjp(
        self, tokens: Float[Tensor, "*rows width"], gradient: Float[Tensor, "*rows classes"]
    ) -> Float[Tensor, "*rows width"]:
        """The gradient with respect to ``tokens``, given one with respect to their logits."""
        inputs, x = [], tokens.to(compute_dtype(tokens.dtype))
        for step in self.maps:
            inputs.append(x)
            x = step(x)
        g = gradient @ self.weight.to(gradient.dtype)
        for step, x in zip(reversed(self.maps), reversed(inputs), strict=True):
            g = step.vjp(x, g)
        return g

    def frozen(
        self, tokens: Float[Tensor, "image pooled width"], target: ClassOrWeights
    ) -> tuple[Float[Tensor, "image width"], Float[Tensor, "image pooled"], Float[Tensor, " image"]]:
        """The logit of ``target``, or a weighted sum of logits, as a linear function of the pooled tokens, every norm's
        scale frozen (law 3).

        Returns ``direction``, ``weights`` and ``constant`` with
        ``logit = Σ_q weights[q] · (tokens[q] · direction) + constant``, exactly, for these tokens; any vector that is
        added to token ``q`` is worth ``weights[q] · (vector · direction)``.
        """
        if self.pool is not None:
            self.pool.pull(tokens)
        x = tokens.to(compute_dtype(tokens.dtype))
        weights = x.new_full(x.shape[:2], 1 / x.shape[1])
        scales = []
        for norm in self.before:
            scales.append(norm.inverse_scale(x)[..., 0])
            x = norm(x)
        x = x.mean(dim=1)
        outer = x.new_ones(len(x), 1)
        after = []
        for norm in self.after:
            after.append(norm.inverse_scale(x))
            x = norm(x)
        weight, bias = self._in(tokens.dtype)
        direction = of_classes(weight, target)
        constant = x.new_zeros(len(x)) if bias is None else of_classes(bias, target)
        for norm, scale in zip(reversed(self.after), reversed(after), strict=True):
            constant = constant + _dot_bias(direction * outer, norm)
            direction, outer = norm.pull(direction), outer * scale
        direction = direction * outer
        for norm, scale in zip(reversed(self.before), reversed(scales), strict=True):
            # A bias between two norms is scaled by the later one, token by token; the mean keeps the pooled share.
            constant = constant + _dot_bias(direction, norm) * weights.sum(dim=1)
            direction, weights = norm.pull(direction), weights * scale
        return direction, weights, constant

    def fold(self) -> Folded | None:
        """The projection with its one norm folded into a matrix; None where more than one norm stands before E.

        Folded in float64 on the CPU, for little: not cached, so that weights changed in place are never stale.
        """
        norms = self.maps
        norm = norms[0] if norms else None
        if len(norms) > 1 or not isinstance(norm, Norm | None):
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

    So the product of a residual stream is the sum of the products of what was added to it, and of the four sites of a
    block only the two sublayer outputs need a matrix product.
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


def of_classes(rows: Tensor, target: ClassOrWeights) -> Tensor:
    """The row (or number) of each image's class, or the sum of all rows by its weights."""
    return target.to(rows.dtype) @ rows if target.is_floating_point() else rows[target]


def _exact(parameter: Tensor) -> Tensor:
    return parameter.detach().cpu().double()


def _dot_bias(direction: Float[Tensor, "image width"], norm: Map) -> Float[Tensor, " image"]:
    if norm.bias is None:
        return direction.new_zeros(len(direction))
    return direction @ norm.bias.to(direction.dtype)
