"""A model whose weights become those of its random twin, stage after stage from the class embedding down."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from classlens.errors import ClasslensError
from classlens.forward.run import run
from classlens.lens.lens import Lens
from classlens.models.view import ModelView

# The names of class embeddings that are no tensors of the module.
_READOUT = "readout "


class Cascade:
    """Cascading randomization: the head first, then the blocks from the last to the first, then the embedding.

        cascade = Cascade(lens, twin)
        cascade.at(1).trace(pixels)        # the head is random, all else as trained

    The twin is what is changed; the model stays as it is. Source: Adebayo et al., *Sanity Checks for Saliency Maps*,
    NeurIPS 2018, section 3.
    """

    def __init__(self, lens: Lens, twin: Lens) -> None:
        self._twin = twin
        self._own = _tensors(twin.view)
        self._random = {name: value.detach().clone() for name, value in self._own.items()}
        self._trained = _tensors(lens.view)
        if {name: one.shape for name, one in self._trained.items()} != {
            name: one.shape for name, one in self._random.items()
        }:
            raise ClasslensError(
                f"model {lens.view.name!r} and its random twin have not the same weights: leave out randomization"
            )
        self._stage = _stages(lens.view, self._trained)
        self._now: int | None = None

    @property
    def stages(self) -> int:
        return len(self._twin.view.blocks) + 2

    def at(self, stages: int) -> Lens:
        """The model with so many stages random; it holds until the next call."""
        with torch.no_grad():
            for name, stage in self._stage.items():
                is_random = stage < stages
                if self._now is None or is_random != (stage < self._now):
                    self._own[name].copy_((self._random if is_random else self._trained)[name])
        self._now = stages
        return self._twin


def _tensors(view: ModelView) -> dict[str, Tensor]:
    """All that a model computes with: parameters, buffers, and class embeddings that are neither."""
    found = {**view.module.state_dict(), **dict(view.module.named_buffers())}
    there = {value.data_ptr() for value in found.values()}
    for number, readout in enumerate(view.readouts):
        for name, value in (("weight", readout.space.weight), ("bias", readout.space.bias)):
            if value is not None and value.data_ptr() not in there:
                found[f"{_READOUT}{number}.{name}"] = value
    return {name: value for name, value in found.items() if value.numel()}


def _stages(view: ModelView, tensors: dict[str, Tensor]) -> dict[str, int]:
    """The stage of each tensor: 0 for what acts after the blocks, then the last block, and so on down.

    Names do not tell what acts when: OpenCLIP holds its text embeddings, their scale and the last projection before the
    blocks.
    """
    names = {id(module): name for name, module in view.module.named_modules()}
    blocks = [f"{names[id(block.points['resid_post'].module)]}." for block in view.blocks]
    late = _after_blocks(view)
    found: dict[str, int] = {}
    for name, value in tensors.items():
        number = next((number for number, block in enumerate(blocks) if name.startswith(block)), None)
        if number is not None:
            found[name] = len(blocks) - number
        else:
            is_head = value.data_ptr() in late or name.startswith(_READOUT)
            found[name] = 0 if is_head else len(blocks) + 1
    return found


def _after_blocks(view: ModelView) -> set[int]:
    """Where the tensors lie that a forward pass uses once the last block has passed."""
    used = _Used()
    passed = {"resid_post": lambda block, _: used.now(block == len(view.blocks) - 1)}
    pixels = torch.zeros(1, view.channels, *view.input_size, device=view.device, dtype=view.dtype)
    with used:
        run(view, pixels, passed)
    return used.places


class _Used(TorchDispatchMode):
    """Every tensor that an operation takes, from ``now(True)`` on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.places: set[int] = set()
        self._counts = False

    def now(self, counts: bool) -> None:
        self._counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._counts:
            self.places |= {x.data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        return func(*args, **(kwargs or {}))
