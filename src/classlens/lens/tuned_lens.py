"""A tuned lens: one affine translator per block, and its file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from classlens.core.arguments import AnyPath, checked
from classlens.core.home import expanded
from classlens.core.steps import Projection
from classlens.errors import ClasslensError, cause
from classlens.models.digest import weights_digest
from classlens.models.files import require_file, require_floats
from classlens.models.view import ModelView

_KIND = "tuned lens"


@checked
@dataclass(frozen=True, eq=False)
class TunedLens:
    """One translator per block, ``x -> weight[b] @ x + bias[b]``, for tokens before they are projected.

    Source: Belrose et al., *Eliciting Latent Predictions from Transformers with the Tuned Lens*, 2023.

    Args:
        weight: ``[block, width, width]``.
        bias: ``[block, width]``.

    Examples:
        >>> import classlens
        >>> lens = classlens.load("builtin:cifar10")
        >>> tuned_lens = classlens.TunedLens.identity(lens.view)
        >>> tuned_lens.bias.shape
        torch.Size([6, 128])
        >>> tuned = lens.with_tuned_lens(tuned_lens)
    """

    weight: Float[Tensor, "block width width"]
    bias: Float[Tensor, "block width"]

    @classmethod
    def identity(cls, view: ModelView) -> TunedLens:
        """The tuned lens that changes nothing, for the blocks and width of a model."""
        width, blocks = view.blocks[0].attn.weight.shape[0], len(view.blocks)
        return cls(torch.eye(width).repeat(blocks, 1, 1), torch.zeros(blocks, width))

    @property
    def digest(self) -> str:
        """SHA-256 of weight and bias."""
        digest = hashlib.sha256()
        for value in (self.weight, self.bias):
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def projections(self, view: ModelView) -> tuple[Projection, ...]:
        """The translator of each block, on the model's device.

        Raises:
            ClasslensError: shapes that do not fit the model, or numbers that are not finite.
        """
        expected = [len(view.blocks), view.blocks[0].attn.weight.shape[0]]
        if list(self.weight.shape) != [*expected, expected[1]] or list(self.bias.shape) != expected:
            raise ClasslensError(
                f"a tuned lens of shape {list(self.weight.shape)} was given, but model {view.name!r} has "
                f"{expected[0]} blocks of width {expected[1]}: give one that was tuned for it"
            )
        require_floats("the tuned lens", weight=self.weight, bias=self.bias)
        return tuple(
            Projection(weight.detach().to(view.device), bias.detach().to(view.device))
            for weight, bias in zip(self.weight, self.bias, strict=True)
        )

    def save(self, file: AnyPath, view: ModelView, metadata: Mapping[str, str] | None = None) -> None:
        """Write a file for ``lens.with_tuned_lens``.

        Args:
            file: safetensors file, replaced if it exists.
            view: the model, as ``lens.view``; its name and a digest of its weights are written beside the translators.
            metadata: further texts by name, for ``read_tuned_lens``.

        Raises:
            ClasslensError: the file cannot be written.
        """
        try:
            Path(expanded(file)).write_bytes(self.to_bytes(view, metadata))
        except OSError as error:
            raise ClasslensError(
                f"file {str(file)!r} cannot be written ({cause(error)}): give the name of a new file"
            ) from None

    def to_bytes(self, view: ModelView, metadata: Mapping[str, str] | None = None) -> bytes:
        """The contents of the file that ``save`` writes."""
        model = {"classlens": _KIND, "model": view.name, "weights": weights_digest(view)}
        tensors = {"weight": self.weight, "bias": self.bias}
        arrays = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        return save(arrays, {**(metadata or {}), **model})


def read_tuned_lens(file: str | os.PathLike[str], view: ModelView) -> tuple[TunedLens, dict[str, str]]:
    """The tuned lens of a file and its metadata; raises ClasslensError for one of another model."""
    path = Path(expanded(file))
    require_file(path, "tuned lens")
    try:
        with safe_open(path, framework="pt") as tensors:
            metadata = dict(tensors.metadata() or {})
            if metadata.get("classlens") != _KIND:
                raise ClasslensError(
                    f"file {str(path)!r} is no tuned lens of classlens: give one that `classlens tune` wrote"
                )
            weight, bias = tensors.get_tensor("weight"), tensors.get_tensor("bias")
    except (OSError, SafetensorError) as error:
        raise ClasslensError(
            f"tuned lens {str(path)!r} cannot be read ({cause(error)}): give a file that `classlens tune` wrote"
        ) from None
    require_floats(f"tuned lens {str(path)!r}", weight=weight, bias=bias)
    if metadata.get("weights") != weights_digest(view):
        raise ClasslensError(
            f"tuned lens {str(path)!r} was tuned for model {metadata.get('model')!r} with other weights than those of "
            f"{view.name!r}: tune one for this model"
        )
    return TunedLens(weight, bias), metadata
