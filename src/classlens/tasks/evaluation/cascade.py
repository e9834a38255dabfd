"""A model whose weights become those of its random twin, stage by stage from the class embedding down."""

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

# Prefix of the names of class embeddings that are not tensors of the module.
_READOUT = "readout "


class Cascade:
    """Cascading randomization: the head becomes random first, then the blocks from last to first, then the embedding.

    The weights of the twin are overwritten; the model is not changed. Source: Adebayo et al., *Sanity Checks for
    Saliency Maps*, NeurIPS 2018, section 3.
    """

    def __init__(self, lens: Lens, twin: Lens) -> None:
        self._twin = twin
        self._current = _tensors(twin.view)
        self._random = {name: value.detach().clone() for name, value in self._current.items()}
        self._trained = _tensors(lens.view)
        trained, drawn = ({name: value.shape for name, value in x.items()} for x in (self._trained, self._random))
        if trained != drawn:
            raise ClasslensError(
                f"model {lens.view.name!r} and its random twin do not have the same weights: leave out randomization"
            )
        self._stage = _stages(lens.view, self._trained)
        self._random_stages: int | None = None

    @property
    def stages(self) -> int:
        """Number of stages: blocks, head and embedding."""
        return len(self._twin.view.blocks) + 2

    def at(self, stages: int) -> Lens:
        """The model with the first ``stages`` stages random; valid until the next call."""
        with torch.no_grad():
            for name, stage in self._stage.items():
                is_random = stage < stages
                if self._random_stages is None or is_random != (stage < self._random_stages):
                    self._current[name].copy_((self._random if is_random else self._trained)[name])
        self._random_stages = stages
        return self._twin


def _tensors(view: ModelView) -> dict[str, Tensor]:
    """All tensors that a model computes with: parameters, buffers, and class embeddings that are neither."""
    tensors = {**view.module.state_dict(), **dict(view.module.named_buffers())}
    pointers = {value.data_ptr() for value in tensors.values()}
    for number, readout in enumerate(view.readouts):
        for name, value in (("weight", readout.space.weight), ("bias", readout.space.bias)):
            if value is not None and value.data_ptr() not in pointers:
                tensors[f"{_READOUT}{number}.{name}"] = value
    return {name: value for name, value in tensors.items() if value.numel()}


def _stages(view: ModelView, tensors: dict[str, Tensor]) -> dict[str, int]:
    """The stage of each tensor: 0 for the head, 1 for the last block, and so on down.

    The head is every tensor used after the last block. Names do not show it: OpenCLIP registers its text embeddings,
    their scale and the last projection before the blocks.
    """
    names = {id(module): name for name, module in view.module.named_modules()}
    blocks = [f"{names[id(block.points['resid_post'].module)]}." for block in view.blocks]
    used_after_blocks = _pointers_after_blocks(view)
    stages: dict[str, int] = {}
    for name, value in tensors.items():
        number = next((number for number, block in enumerate(blocks) if name.startswith(block)), None)
        if number is not None:
            stages[name] = len(blocks) - number
        else:
            is_head = value.data_ptr() in used_after_blocks or name.startswith(_READOUT)
            stages[name] = 0 if is_head else len(blocks) + 1
    return stages


def _pointers_after_blocks(view: ModelView) -> set[int]:
    """Data pointers of the tensors that a forward pass uses after the last block."""
    recorder = _PointerRecorder()
    receivers = {"resid_post": lambda block, _: recorder.record(block == len(view.blocks) - 1)}
    pixels = torch.zeros(1, view.channels, *view.input_size, device=view.device, dtype=view.dtype)
    with recorder:
        run(view, pixels, receivers)
    return recorder.pointers


class _PointerRecorder(TorchDispatchMode):
    """Records the data pointer of every tensor that an operation takes, while ``record(True)`` holds."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.pointers: set[int] = set()
        self._records = False

    def record(self, records: bool) -> None:
        self._records = records

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._records:
            self.pointers |= {x.data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        return func(*args, **(kwargs or {}))
