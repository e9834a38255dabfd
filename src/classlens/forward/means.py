"""Mean activations of a model over a data set, which ablations put in the place of those of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from classlens.core.arguments import checked
from classlens.errors import ClasslensError
from classlens.forward.model_state import ModelState
from classlens.models.classes import Classes
from classlens.models.digest import weights_digest
from classlens.models.view import ModelView, Tokens

MeanPoint = Literal["attn_out", "mlp_out", "attn_joined", "attn_coefficients", "mlp_coefficients"]
MEAN_POINTS: tuple[MeanPoint, ...] = ("attn_out", "mlp_out", "attn_joined", "attn_coefficients", "mlp_coefficients")
"""Points of a block whose means are measured: what sublayers add, joined heads before and after an inner norm, and
hidden units."""

_DIGESTS: WeakKeyDictionary[ModelView, tuple[ModelState, str]] = WeakKeyDictionary()
"""Digest of the weights of each model, with the state in which it was computed."""


@checked
@dataclass(frozen=True, eq=False)
class Means:
    """Mean activations over a data set, for ``to=`` of ``AblateHeads``, ``AblateNeurons`` and ``AblateSublayer``.

    Measured by ``classlens.means`` and read by ``classlens.load_means``.

    Attributes:
        model: name of the measured model.
        weights: digest of its weights; edits of other models refuse these means.
        data: data set.
        images: number of images that the means are over.
        tokens: prefix tokens and grid of image tokens.
        values: ``[token, channel]`` by point and block, such as ``"mlp_out.5"``; float32.
        class_values: ``[class, token kind, channel]``, likewise: the classes of ``class_images`` in their order; each
            prefix token, then all image tokens together. Empty without means by class.
        class_names: name of each class of the model; empty without means by class.
        class_images: number of images of each class that has any.

    Examples:
        >>> import classlens
        >>> means = classlens.load_means("means.safetensors")  # doctest: +SKIP
        >>> edit = classlens.AblateHeads([0, 3], blocks=[5], to=means)  # doctest: +SKIP
        >>> edit = classlens.AblateHeads([0, 3], blocks=[5], to=means.by_class("cat"))  # doctest: +SKIP
    """

    model: str
    weights: str
    data: str
    images: int
    tokens: Tokens
    values: Mapping[str, Tensor] = field(repr=False)
    class_values: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    class_names: tuple[str, ...] = field(default=(), repr=False)
    class_images: Mapping[int, int] = field(default_factory=dict, repr=False)

    def by_class(self, category: int | str) -> Means:
        """Means over the images of one class.

        Image tokens share one mean, that over all image tokens of these images; each prefix token has its own.

        Args:
            category: name or index of a class of the model.

        Returns:
            Means like these.

        Raises:
            ClasslensError: means that were measured without ``by_class``, an unknown class, or one without images.

        Examples:
            >>> import classlens
            >>> cats = classlens.load_means("means.safetensors").by_class("cat")  # doctest: +SKIP
        """
        if not self.class_images:
            raise ClasslensError(
                f"category {category!r} was given to means that are not by class: measure them with `classlens means "
                "--by-class`"
            )
        index = Classes(self.class_names).index(category)
        if index not in self.class_images:
            raise ClasslensError(
                f"category {category!r} has no images among those of the means, data {self.data!r}: measure means of "
                "data with images of this class"
            )
        row, kinds = list(self.class_images).index(index), token_kinds(self.tokens)
        values = {key: by_class[row][kinds] for key, by_class in self.class_values.items()}
        data = f"{self.data}, {self.class_names[index]}"
        return replace(
            self,
            data=data,
            images=self.class_images[index],
            values=values,
            class_values={},
            class_names=(),
            class_images={},
        )


def mean_key(point: str, block: int) -> str:
    """The name of a point and block among the values of means."""
    return f"{point}.{block}"


def token_kinds(tokens: Tokens) -> Tensor:
    """The kind of each token, ``[token]``: its own number for a prefix token, one number for all image tokens."""
    return torch.arange(tokens.count).clamp_max(len(tokens.prefix))


def require_means_of(view: ModelView, means: Means) -> None:
    """Raises ClasslensError for means of another model, or of another number of tokens."""
    if means.weights != _digest(view):
        raise ClasslensError(
            f"to= has means of model {means.model!r} with other weights than those of {view.name!r}: measure means of "
            "this model with `classlens means`"
        )
    tokens = means.tokens if view.any_size else view.tokens(view.input_size)
    if tokens != means.tokens:
        raise ClasslensError(
            f"to= has means of {_shown(means.tokens)}, but model {view.name!r} has {_shown(tokens)}: measure means at "
            "this input size"
        )


def means_at(means: Means, view: ModelView, point: str, block: int) -> Float[Tensor, "token channel"]:
    """The values of a point of a block; raises ClasslensError where none were measured, or for another model's."""
    values = means.values.get(mean_key(point, block))
    width = _width(view, point, block)
    if values is None or values.shape[1] != width:
        found = "no values" if values is None else f"{values.shape[1]} channels"
        raise ClasslensError(
            f"to= has means with {found} at {point} of block {block}, but model {view.name!r} has {width} channels "
            "there: measure means of this model with `classlens means`"
        )
    return values


def _shown(tokens: Tokens) -> str:
    return f"{tokens.count} tokens ({tokens.grid[0]}×{tokens.grid[1]} image tokens)"


def _width(view: ModelView, point: str, block: int) -> int:
    """Number of channels that pass at a point."""
    sublayer, _, place = point.partition("_")
    output = view.blocks[block].attn if sublayer == "attn" else view.blocks[block].mlp
    return int(output.weight.shape[0 if place == "out" else 1])


def _digest(view: ModelView) -> str:
    """The digest of the weights, computed anew only where they have changed."""
    state = ModelState.of(view.module)
    known = _DIGESTS.get(view)
    if known is None or not known[0].same_weights(state):
        _DIGESTS[view] = known = state, weights_digest(view)
    return known[1]
