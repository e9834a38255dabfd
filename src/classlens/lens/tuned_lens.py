"""A tuned lens: one affine translator a block, and the file that holds them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from classlens.core.maps import Projection
from classlens.errors import ClasslensError, cause
from classlens.models.digest import weights_digest
from classlens.models.view import ModelView
from classlens.store.atomic import atomic_write as writing

_KIND = "tuned lens"


@dataclass(frozen=True, eq=False)
class TunedLens:
    """``x -> weight[b] @ x + bias[b]`` for the tokens after block ``b``, before they are projected.

    tuned_lens = TunedLens.identity(lens.view)
    lens.with_tuned_lens(tuned_lens)
    """

    weight: Float[Tensor, "block width width"]
    bias: Float[Tensor, "block width"]

    @classmethod
    def identity(cls, view: ModelView) -> TunedLens:
        """The plain projection."""
        width, blocks = view.blocks[0].attn.weight.shape[0], len(view.blocks)
        return cls(torch.eye(width).repeat(blocks, 1, 1), torch.zeros(blocks, width))

    @property
    def digest(self) -> str:
        """It tells one tuned lens from another."""
        found = hashlib.sha256()
        for value in (self.weight, self.bias):
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    def maps(self, view: ModelView) -> tuple[Projection, ...]:
        """One map a block, where the model is; raises ClasslensError where they do not fit it."""
        expected = [len(view.blocks), view.blocks[0].attn.weight.shape[0]]
        if list(self.weight.shape) != [*expected, expected[1]] or list(self.bias.shape) != expected:
            raise ClasslensError(
                f"tuned_lens of shape {list(self.weight.shape)} were given, but model {view.name!r} has "
                f"{expected[0]} blocks of width {expected[1]}: give those that were tuned for it"
            )
        if not all(bool(torch.isfinite(value).all()) for value in (self.weight, self.bias)):
            raise ClasslensError("tuned_lens hold numbers that are not finite: tune them anew")
        return tuple(
            Projection(weight.detach().to(view.device), bias.detach().to(view.device))
            for weight, bias in zip(self.weight, self.bias, strict=True)
        )


def write_tuned_lens(file: str | os.PathLike[str], made: TunedLens, view: ModelView, about: Mapping[str, str]) -> None:
    """Write a tuned lens of a model, whole or not at all; ``about`` tells how it was made."""
    path = Path(file)
    known = {"classlens": _KIND, "model": view.name, "weights": weights_digest(view)}
    try:
        with writing(path) as name:
            tensors = {"weight": made.weight.detach().cpu(), "bias": made.bias.detach().cpu()}
            save_file({key: value.contiguous() for key, value in tensors.items()}, name, {**about, **known})
    except (OSError, SafetensorError) as error:
        raise ClasslensError(
            f"tuned lens {str(path)!r} cannot be written ({cause(error)}): give another --out"
        ) from None


def read_tuned_lens(file: str | os.PathLike[str], view: ModelView) -> tuple[TunedLens, dict[str, str]]:
    """The tuned_lens of a file and what it says of them; raises ClasslensError for one of another model."""
    path = Path(file)
    try:
        with safe_open(path, framework="pt") as opened:
            about = dict(opened.metadata() or {})
            if about.get("classlens") != _KIND:
                raise ClasslensError(
                    f"file {str(path)!r} is no tuned lens of classlens: give one that `classlens tune` wrote"
                )
            found = TunedLens(opened.get_tensor("weight"), opened.get_tensor("bias"))
    except (OSError, SafetensorError) as error:
        raise ClasslensError(
            f"tuned lens {str(path)!r} cannot be read ({cause(error)}): give a file that `classlens tune` wrote"
        ) from None
    if about.get("weights") != weights_digest(view):
        raise ClasslensError(
            f"tuned lens {str(path)!r} was tuned for model {about.get('model')!r} with other weights than those of "
            f"{view.name!r}: tune one for this model"
        )
    return found, about
