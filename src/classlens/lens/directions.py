"""Directions of a user in the residual stream, such as the features of a sparse autoencoder, and their file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
import xarray as xr
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional as F

from classlens.core.arguments import AnyPath, AtLeast0, AtLeast1, checked, whole_number
from classlens.core.attention import Output
from classlens.core.path_arguments import checked_with_home
from classlens.core.steps import compute_dtype
from classlens.errors import ClasslensError, cause, unknown
from classlens.lens.facts import site_blocks
from classlens.lens.lens import Lens
from classlens.lens.memories import value_classes
from classlens.models.files import HALF_TO_DOUBLE, require_file, require_floats
from classlens.models.view import SITES, ModelView, Site

# The field of each tensor, by its name in a file.
_FIELDS = {
    "directions": "directions",
    "W_dec": "directions",
    "encoder": "encoder",
    "W_enc": "encoder",
    "b_enc": "encoder_bias",
    "b_dec": "decoder_bias",
}


@checked
@dataclass(frozen=True, eq=False)
class Directions:
    """Directions in token space at a site of a block, with the encoder that says how much of each a token has.

    Without an encoder they are plain directions, such as principal components or concept vectors; with one, the
    features of a sparse autoencoder (Bricken et al., *Towards Monosemanticity*, 2023).

    Args:
        directions: a row for each feature, ``[feature, width]``.
        site: site of the tokens, see ``Trace``.
        block: block of the tokens, from 0.
        encoder: weights of the encoder, ``[feature, width]``; None for projections on the directions.
        encoder_bias: bias of the encoder, ``[feature]``; None for 0.
        decoder_bias: what is subtracted from the tokens first, ``[width]``; None for 0.

    Raises:
        ClasslensError: sizes that do not fit, numbers that are not finite, a bias of an encoder without its weights, or
            a direction of zeros without an encoder.

    Examples:
        >>> import torch
        >>> directions = Directions(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), "resid_post", 11)
        >>> directions.coefficients(torch.tensor([[4.0, 3.0]]))
        tensor([[2., 3.]])
    """

    directions: Float[Tensor, "feature width"]
    site: Site
    block: AtLeast0
    encoder: Float[Tensor, "feature width"] | None = None
    encoder_bias: Float[Tensor, " feature"] | None = None
    decoder_bias: Float[Tensor, " width"] | None = None

    def __post_init__(self) -> None:
        tensors = {name: value for name in _FIELDS.values() if (value := getattr(self, name)) is not None}
        require_floats("the set of directions", dtypes=HALF_TO_DOUBLE, **tensors)
        if self.encoder is None and self.encoder_bias is not None:
            raise ClasslensError("an encoder_bias was given without an encoder: give both, or neither")
        zeros = torch.nonzero(~self.directions.bool().any(dim=1))[:, 0].tolist()
        if self.encoder is None and zeros:
            raise ClasslensError(
                f"row {zeros[0]} of directions is zero, and nothing can be projected on it: leave it out, or give an "
                "encoder"
            )

    def _axis_sizes(self) -> dict[str, int]:
        feature, width = self.directions.shape
        return {"feature": feature, "width": width}

    @property
    def digest(self) -> str:
        """SHA-256 of the tensors and their place in the model."""
        total = hashlib.sha256(f"{self.site} {self.block}".encode())
        for name in _FIELDS.values():
            value = getattr(self, name)
            if value is not None:
                total.update(name.encode() + value.detach().cpu().double().contiguous().numpy().tobytes())
        return total.hexdigest()

    def coefficients(self, states: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows feature"]:
        """How much of each direction tokens have.

        Args:
            states: tokens at the site, ``[..., width]``.

        Returns:
            ``relu((x - b_dec) W_encᵀ + b_enc)``, or without an encoder ``(x - b_dec) · d / |d|²``: ``[..., feature]``.
        """
        x = states.to(compute_dtype(states.dtype))
        if self.decoder_bias is not None:
            x = x - self.decoder_bias.to(x)
        if self.encoder is None:
            directions = self.directions.to(x)
            return (x @ directions.T) / directions.square().sum(dim=1)
        bias = None if self.encoder_bias is None else self.encoder_bias.to(x)
        return F.linear(x, self.encoder.to(x), bias).relu()


@checked_with_home
def read_directions(path: AnyPath, *, site: Site | None = None, block: AtLeast0 | None = None) -> Directions:
    """Read directions, or a sparse autoencoder, from a safetensors file.

    Tensors: ``directions`` or ``W_dec`` ``[feature, width]``; for an autoencoder with one layer and ReLU also
    ``encoder`` or ``W_enc``, ``[feature, width]`` or ``[width, feature]``, ``b_enc`` ``[feature]`` and ``b_dec``
    ``[width]``. Files with other tensors are refused, as other encoders give other coefficients.

    Args:
        path: the ``.safetensors`` file.
        site: site of the tokens, see ``Trace``; by default the ``site`` in the file's metadata.
        block: block of the tokens, from 0; by default the ``block`` in the file's metadata.

    Returns:
        The directions.

    Raises:
        ClasslensError: no file or a damaged one; tensors that are missing, unknown, not finite or of other sizes; an
            encoder with as many features as channels, whose layout cannot be told; no site or block.

    Examples:
        >>> import classlens
        >>> directions = classlens.read_directions("sae.safetensors", site="resid_post", block=11)  # doctest: +SKIP
    """
    file = Path(path)
    label = f"file of directions {str(file)!r}"
    require_file(file, "file of directions")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ClasslensError(f"{label} cannot be read ({cause(error)}): give a safetensors file") from None
    fields: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name not in _FIELDS:
            raise ClasslensError(f"{label} holds a tensor {name!r}: expected only {', '.join(_FIELDS)}; leave it out")
        if _FIELDS[name] in fields:
            names = " and ".join(key for key, kind in _FIELDS.items() if kind == _FIELDS[name])
            raise ClasslensError(f"{label} holds both {names}: leave out one of them")
        fields[_FIELDS[name]] = tensor
    if "directions" not in fields:
        raise ClasslensError(f"{label} holds no tensor directions or W_dec: give them, a row for each feature")
    require_floats(label, dtypes=HALF_TO_DOUBLE, **tensors)
    shape = list(fields["directions"].shape)
    if len(shape) != 2 or 0 in shape:
        raise ClasslensError(f"{label} has directions of shape {shape}: expected a row for each feature")
    if "encoder" in fields:
        fields["encoder"] = _rows(fields["encoder"], shape, label)
    _check_sizes(fields, shape, label)
    return Directions(site=_site(site, metadata, label), block=_block(block, metadata, label), **fields)


def _rows(encoder: Tensor, shape: list[int], label: str) -> Tensor:
    """The encoder with a row for each feature, however it was stored."""
    if list(encoder.shape) == shape == shape[::-1]:
        raise ClasslensError(
            f"{label} has as many features as channels, so that the layout of its encoder cannot be told: make "
            "classlens.Directions of the tensors"
        )
    return encoder.T.contiguous() if list(encoder.shape) == shape[::-1] else encoder


def _check_sizes(fields: dict[str, Tensor], shape: list[int], label: str) -> None:
    expected = {"encoder": shape, "encoder_bias": shape[:1], "decoder_bias": shape[1:]}
    for name, sizes in expected.items():
        if name in fields and list(fields[name].shape) != sizes:
            raise ClasslensError(
                f"{label} has {shape[0]} directions of width {shape[1]}, which its {name.replace('_', ' ')} of shape "
                f"{list(fields[name].shape)} does not fit: expected {sizes}; give tensors of one model"
            )


def _site(site: Site | None, metadata: dict[str, str], label: str) -> Site:
    name = metadata.get("site") if site is None else site
    if name is None:
        raise ClasslensError(f"{label} names no site in its metadata: write it there, or give site= to read_directions")
    for known in SITES:
        if name == known:
            return known
    raise unknown(f"{label} names a site that", name, SITES)


def _block(block: int | None, metadata: dict[str, str], label: str) -> int:
    if block is not None:
        return block
    text = metadata.get("block")
    if text is None:
        raise ClasslensError(
            f"{label} names no block in its metadata: write it there, or give block= to read_directions, from 0"
        )
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ClasslensError(f"{label} names block {text[:20]!r} in its metadata: expected a number; give block=")
    return int(text)


@checked
def direction_classes(lens: Lens, directions: Directions, feature: int, *, k: AtLeast1 = 10) -> xr.Dataset:
    """The classes that a direction scores highest: what a token that has more of it is more like.

    Args:
        lens: the model.
        directions: directions in the width of its tokens.
        feature: number of the direction, from 0.
        k: number of classes.

    Returns:
        Dim ``place``, the best first: ``category``, ``class_name``, ``score`` (``E · d``, without norm weight and bias)
        and ``cosine`` (-1 to 1).

    Raises:
        ClasslensError: directions of another width, or a feature that they do not have.

    Examples:
        >>> import classlens, torch
        >>> lens = classlens.load("builtin:cifar10")
        >>> directions = classlens.Directions(lens.view.space.weight.detach(), "resid_post", 5)
        >>> classlens.direction_classes(lens, directions, 3, k=2).class_name.values[0]
        'cat'
    """
    lens._check_model()
    embedding = lens.view.space.embedding
    require_fits(directions, lens.view)
    feature = whole_number("feature", feature, 0, len(directions.directions) - 1, hint=" of the directions")
    output = Output(directions.directions.detach().T.to(embedding.device, embedding.dtype))
    attrs: dict[str, object] = {"site": directions.site, "block": directions.block, "feature": feature}
    return value_classes(lens, attrs, output, feature, k)


def require_fits(directions: Directions, view: ModelView) -> None:
    """Raises ClasslensError for directions of another width, site or block than a model has."""
    width, model = view.space.embedding.shape[1], view.name
    if directions.directions.shape[1] != width:
        raise ClasslensError(
            f"directions of width {directions.directions.shape[1]} were given, but tokens of model {model!r} have "
            f"width {width}: give directions of this model"
        )
    last = len(site_blocks(view, directions.site)) - 1
    if directions.block > last:
        raise ClasslensError(
            f"directions at {directions.site} of block {directions.block} do not fit model {model!r}: its last block "
            f"with this site is {last}; give directions of this model"
        )
