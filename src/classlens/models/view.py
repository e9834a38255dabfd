"""The uniform view: what a Vision Transformer looks like to everything above it, whatever library made it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from classlens.core.attention import Output
from classlens.core.maps import Map
from classlens.core.space import ClassSpace
from classlens.errors import ClasslensError

Site = Literal["embed", "resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"]
SITES: tuple[Site, ...] = ("embed", "resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")


# What every block must show.
_POINTS = ("resid_pre", "attn_out", "mlp_out", "resid_post", "values", "attention")


def _unchanged(passing: Any) -> Tensor:
    tensor: Tensor = passing
    return tensor


@dataclass(frozen=True, eq=False)
class Point:
    """A place where a tensor passes in a forward pass: what a module takes or gives, and how to read it.

    ``more`` names further modules at which parts of the same tensor pass (parallel branches), and ``join`` puts the
    parts together in the order in which they are named.
    """

    module: nn.Module
    end: Literal["input", "output"] = "output"
    read: Callable[[Any], Tensor] = _unchanged
    more: tuple[nn.Module, ...] = ()
    join: Callable[[list[Tensor]], Tensor] = sum  # type: ignore[assignment]
    shares: tuple[int, ...] = ()
    """For parts that stand in a row: how many heads or channels each has. Without them parts are summed."""
    write: Callable[[Any, Tensor], Any] | None = None
    """From what passes and a new tensor to what is to pass; not needed where ``read`` changes nothing."""

    @property
    def editable(self) -> bool:
        return self.write is not None or self.read is _unchanged

    def written(self, passing: Any, new: Tensor) -> Any:
        """What is to pass so that ``read`` gives ``new``."""
        return new if self.write is None else self.write(passing, new)


@dataclass(frozen=True, eq=False)
class BlockView:
    """One transformer block.

    ``points`` names the places that hooks read: ``resid_pre, attn_out, mlp_out, resid_post``; ``values``
    (``[image, head, token, channel]``); ``attention`` (the weights after softmax ``[image, head, query, token]``, which
    may pass only while attention is not fused); and where the block has them ``attn_coefficients, mlp_coefficients``
    (memory coefficients, what enters a sublayer's last projection ``[image, token, channel]``, which may pass only
    within ``ModelView.opened``), ``attn_raw, mlp_raw`` (a sublayer's output
    before the norm of a post-norm block) and ``attn_joined, mlp_joined`` (before an inner norm).
    """

    points: dict[str, Point]
    heads: int
    attn: Output
    mlp: Output

    def __post_init__(self) -> None:
        missing = [name for name in _POINTS if name not in self.points]
        if missing:
            raise ClasslensError(
                f"a BlockView without the point {missing[0]!r} was made: a block needs {', '.join(_POINTS)}"
            )


@dataclass(frozen=True)
class Tokens:
    """The tokens of one sequence: prefix names, then the grid of image tokens in row-major order."""

    prefix: tuple[str, ...]
    grid: tuple[int, int]

    @property
    def count(self) -> int:
        return len(self.prefix) + self.grid[0] * self.grid[1]

    @property
    def image(self) -> slice:
        """Where the image tokens stand."""
        return slice(len(self.prefix), self.count)

    @property
    def kinds(self) -> list[str]:
        """``cls``, ``reg0`` … for prefix tokens, ``image`` for the others."""
        return [*self.prefix, *["image"] * (self.grid[0] * self.grid[1])]


@dataclass(frozen=True, eq=False)
class Readout:
    """How the head reads some of the tokens; the model's logits are the weighted sum over its readouts."""

    space: ClassSpace
    pooled: slice
    """The tokens that the head pools here."""
    tokens: slice = field(default_factory=lambda: slice(None))
    """The tokens that are projected through this class space; those of a later readout win."""
    weight: float = 1.0
    counts_bias: bool = True
    """False where the bias belongs to another readout's share of the logits (one head split in two)."""

    def logits(self, last: Tensor, kept: Tensor | None = None) -> Tensor:
        """This readout's share of the model's logits; of the tokens ``kept`` (``[image, token]``) alone, if given."""
        if kept is None:
            logits = self.space.pooled(last[:, self.pooled])
        else:
            rows = zip(last[:, self.pooled], kept[:, self.pooled], strict=True)
            logits = torch.cat([self.space.pooled(states[here][None]) for states, here in rows])
        if not self.counts_bias and self.space.bias is not None:
            logits = logits - self.space.bias.to(logits.dtype)
        return logits * self.weight


def _first_logits(output: Any) -> Tensor:
    logits: Tensor = output
    return logits


@dataclass(frozen=True, eq=False)
class ModelView:
    """A model as classlens sees it; it holds the user's own modules and parameters, unmodified."""

    module: nn.Module
    name: str
    blocks: tuple[BlockView, ...]
    readouts: tuple[Readout, ...]
    prefix: tuple[str, ...]
    pooling: str
    """``cls``, ``avg`` or what else the head does, in a word."""
    input_size: tuple[int, int]
    grid: Callable[[tuple[int, int]], tuple[int, int]] = field(repr=False)
    """Rows and columns of image tokens for pixels of a given height and width."""
    any_size: bool = False
    """Whether the model takes other sizes than ``input_size``."""
    channels: int = 3
    logits_of: Callable[[Any], Tensor] = _first_logits
    """Reads the class logits off what the module returns."""
    unfused: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Attention computed in steps, so that its weights pass at the point ``attention``."""
    opened: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Attention computed so that its memory coefficients pass at the point ``attn_coefficients``."""
    family: str = "own"
    """The library that made the model; ``own`` where a user describes it."""
    has_mid: bool = True
    """False where attention and MLP share one residual add, so that there is no ``resid_mid``."""
    class_names: Sequence[str] | None = None
    """For a model that a user describes: a name for each row of its head."""
    transform: Callable[[Any], Tensor] | None = field(default=None, repr=False)
    """For a model that a user describes: from a picture to pixels ``[channel, height, width]``."""
    size_option: str | None = None
    """What the model's library calls the option that makes it for another input size."""

    tuned_lens: tuple[Map, ...] | None = field(default=None, repr=False)
    """Of a tuned lens: what the tokens of each block pass before they are projected."""

    @property
    def space(self) -> ClassSpace:
        """The class space of the first readout: that of ``[CLS]``, or of the tokens that are averaged."""
        return self.readouts[0].space

    @property
    def pooled(self) -> slice:
        """The tokens that the first readout pools: the queries of an explanation."""
        return self.readouts[0].pooled

    @property
    def num_classes(self) -> int:
        return self.space.num_classes

    @property
    def device(self) -> torch.device:
        return self.space.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    def run(self, pixels: Tensor) -> Tensor:
        """The model's own logits ``[image, category]``."""
        return self.logits_of(self.module(pixels))

    def at(self, space: ClassSpace, site: str, block: int) -> ClassSpace:
        """A class space as it reads a site of a block: with a tuned lens, behind the translator of the block.

        What enters a block is what leaves the one before it, and is read like that; the embeddings are read as they
        are.
        """
        number = block - 1 if site in ("embed", "resid_pre") else block
        return space if self.tuned_lens is None or number < 0 else space.behind(self.tuned_lens[number])

    def reading(self, space: ClassSpace) -> Callable[[str, int], ClassSpace] | None:
        """``at`` for one space; None where every site and block is read in the same way."""
        return None if self.tuned_lens is None else partial(self.at, space)

    def after(self, block: int, states: Tensor) -> Tensor:
        """The logits that the tokens after a block give, pooled as the model pools those after the last one."""
        return self.logits(states if self.tuned_lens is None else self.tuned_lens[block](states))

    def logits(self, last: Tensor, kept: Tensor | None = None) -> Tensor:
        """The logits that the last hidden states ``[image, token, width]`` give, pooled as the model does (law 2).

        Where ``kept`` (``[image, token]``) is given, the head pools these tokens alone.
        """
        return torch.stack([readout.logits(last, kept) for readout in self.readouts]).sum(dim=0)

    def spaces(self, count: int) -> list[tuple[ClassSpace, Tensor | slice]]:
        """Each class space with its tokens, which together are all ``count`` tokens."""
        if len(self.readouts) == 1:
            return [(self.space, slice(None))]
        owner = torch.zeros(count, dtype=torch.int64)
        for number, readout in enumerate(self.readouts):
            owner[readout.tokens] = number
        groups = [(readout.space, torch.nonzero(owner == number)[:, 0]) for number, readout in enumerate(self.readouts)]
        return [(space, tokens) for space, tokens in groups if len(tokens)]

    def tokens(self, size: tuple[int, int]) -> Tokens:
        """The tokens of an input of this height and width; raises ClasslensError when the model cannot take it."""
        if size != self.input_size and not self.any_size:
            other = f", or load the model with {self.size_option}={size}" if self.size_option else ""
            raise ClasslensError(
                f"pixels are {size[0]}×{size[1]}, but model {self.name!r} takes "
                f"{self.input_size[0]}×{self.input_size[1]}: resize them{other}"
            )
        return Tokens(self.prefix, self.grid(size))
