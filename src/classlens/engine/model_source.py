"""The model of a run, loaded once per process, with its random twin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import nn

from classlens.core.arguments import Takes
from classlens.errors import ClasslensError
from classlens.lens.lens import Lens
from classlens.lens.load import load
from classlens.lens.random_twin import random_twin
from classlens.models.load import load_model
from classlens.models.view import ModelView

Model = Annotated[
    str | Path | nn.Module | ModelView | Lens, Takes("a model name, a folder, a module, a ModelView or a Lens")
]


class ModelSource:
    """A model and the options that load it. It can be pickled where the model is given by name."""

    def __init__(self, model: Model, options: Mapping[str, Any]) -> None:
        self._lenses: dict[object, Lens] = {"model": model} if isinstance(model, Lens) else {}
        self.model: str | Path | nn.Module | ModelView = model.view if isinstance(model, Lens) else model
        self.by_name = isinstance(model, str | Path)
        self.options = dict(options)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_lenses": {}}

    @property
    def lens(self) -> Lens:
        """The model itself."""
        return self._cached("model", lambda: load(self.model, **self.options))

    def random_twin(self, seed: int) -> Lens:
        """The random twin of a seed; raises ClasslensError for a model that no library makes anew."""
        return self._cached(("twin", seed), lambda: random_twin(self.model, self.lens, self.options, seed))

    def doubled(self) -> Lens | None:
        """The model for twice its input size; None where it cannot be had.

        A model of any size is itself; a library may resample position embeddings.
        """
        view = self.lens.view
        if view.any_size:
            return self.lens
        if not self.by_name or view.size_option is None or str(self.model).startswith("builtin:"):
            return None
        try:
            return self._cached("doubled", self._load_doubled)
        except ClasslensError:
            return None

    def _load_doubled(self) -> Lens:
        view = self.lens.view
        height, width = view.input_size
        size: Any = 2 * height if height == width else (2 * height, 2 * width)
        options = {**self.options, str(view.size_option): size}
        doubled = Lens(load_model(self.model, **options))  # without the notes of `load` on a size that nobody asked for
        same = torch.equal(doubled.view.blocks[0].attn.weight, view.blocks[0].attn.weight)
        if not same or doubled.view.input_size != (2 * height, 2 * width):
            raise ClasslensError(f"model {view.name!r} has no version of twice its size: give its own size")
        return doubled

    def _cached(self, key: object, load_lens: Callable[[], Lens]) -> Lens:
        if key not in self._lenses:
            self._lenses[key] = load_lens()
        return self._lenses[key]
