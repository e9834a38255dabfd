"""The uniform view of a Vision Transformer: blocks, tokens and class space, whatever library made the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from classlens.core.arguments import checked
from classlens.core.attention import Output
from classlens.core.attention_rows import Scores, dot_products
from classlens.core.space import ClassSpace
from classlens.core.steps import Step
from classlens.errors import ClasslensError

Site = Literal["embed", "resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"]
SITES: tuple[Site, ...] = ("embed", "resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
"""The meaning of a head's outputs, in the terms of transformers: classes that exclude each other (softmax), labels with
a probability each (sigmoid; a single binary logit is one label), or numbers in a unit of their own."""

_REQUIRED_POINTS = ("resid_pre", "attn_out", "mlp_out", "resid_post", "values", "attention")
SCORE_POINTS = ("queries", "keys", "attn_in")
"""Points that the scores of attention are computed from."""
SHARED_POINTS = ("attn_bias", "rotation")
"""Points that they take beside these, the same for all images; a block may have one where nothing passes."""


def _unchanged(passing: Any) -> Tensor:
    tensor: Tensor = passing
    return tensor


@checked
@dataclass(frozen=True, eq=False)
class Point:
    """A place in a forward pass where a hook gets a tensor: the input or the output of a module.

    Args:
        module: the module that the tensor passes.
        end: ``"output"``, or ``"input"`` for the module's first argument.
        read: from the module's input or output to the tensor in the shape that ``BlockView`` gives; by default
            the tensor itself. Where it returns None, nothing passes.
        more: further modules that pass parts of the same tensor, for parallel branches.
        join: combines the parts, in the order of the modules; by default their sum.
        shares: number of heads or channels of each part, for parts that are concatenated; empty for a sum.
        write: from the module's input or output and a new tensor to the value to pass on, the inverse of ``read``.
            Without it, and with a ``read``, the point cannot be edited.
        argument: name of another argument than the first; the point cannot be edited.

    Examples:
        >>> from torch import nn
        >>> Point(nn.Linear(8, 8), "input").editable
        True
        >>> Point(nn.Linear(8, 24), read=lambda qkv: qkv[..., 16:]).editable
        False
    """

    module: nn.Module
    end: Literal["input", "output"] = "output"
    read: Callable[[Any], Tensor | None] = _unchanged
    more: tuple[nn.Module, ...] = ()
    join: Callable[[list[Tensor]], Tensor] = sum  # type: ignore[assignment]
    shares: tuple[int, ...] = ()
    write: Callable[[Any, Tensor], Any] | None = None
    argument: str | None = None

    @property
    def editable(self) -> bool:
        """Whether another tensor can take the place of the one that passes."""
        return self.argument is None and (self.write is not None or self.read is _unchanged)

    def written(self, passing: Any, new: Tensor) -> Any:
        """The value to pass on in place of ``passing``, so that ``read`` returns ``new``."""
        return new if self.write is None else self.write(passing, new)


@checked
@dataclass(frozen=True, eq=False)
class BlockView:
    """One transformer block.

    Args:
        points: the points of the block by name, all but the first six optional:

            - ``resid_pre``, ``resid_post``: the residual stream before and after the block, ``[image, token, width]``;
            - ``attn_out``, ``mlp_out``: the vectors that the sublayers add to it, ``[image, token, width]``;
            - ``values``: ``[image, head, token, channel]``;
            - ``attention``: the weights after the softmax, ``[image, head, query, token]``; they need to pass only
              within ``ModelView.unfused``;
            - ``queries``, ``keys``: ``[image, head, token, channel]``, as the dot product takes them, before it is
              scaled; or ``attn_in``, the input of attention ``[image, token, width]``, with ``scores`` of your own.
              With them, attention weights are known while attention stays fused;
            - ``attn_bias``: added to the scores, ``[…, query, token]``, the same for all images; ``rotation``: what
              turns queries and keys by their positions, for ``scores`` of your own;
            - ``attn_coefficients``, ``mlp_coefficients``: memory coefficients, the input of a sublayer's last
              projection, ``[image, token, unit]``; they need to pass only within ``ModelView.exposing_coefficients``;
            - ``attn_raw``, ``mlp_raw``: a sublayer's output before a post-norm, ``[image, token, width]``;
            - ``attn_joined``, ``mlp_joined``: the input of an inner norm, ``[image, token, unit]``.
        heads: number of attention heads.
        attn: output projection of attention.
        mlp: output projection of the MLP.
        scores: from the tensors that passed at ``queries``, ``keys``, ``attn_in``, ``attn_bias`` and ``rotation``, by
            name, and the positions of some queries to what the softmax takes, ``[image, head, query, token]``. By
            default ``queries · keysᵀ / sqrt(channel) + attn_bias``.

    Raises:
        ClasslensError: one of the first six points is missing, or a part of what the scores are computed from.

    Examples:
        >>> import classlens
        >>> block = classlens.load("builtin:cifar10").view.blocks[0]
        >>> block.heads, "attn_raw" in block.points
        (4, False)
    """

    points: dict[str, Point]
    heads: int
    attn: Output
    mlp: Output
    scores: Scores = dot_products

    def __post_init__(self) -> None:
        missing = [name for name in _REQUIRED_POINTS if name not in self.points]
        if self.shows_scores and ("attn_in" not in self.points or self.scores is dot_products):
            missing += [name for name in ("queries", "keys") if name not in self.points]
        if missing:
            raise ClasslensError(
                f"a BlockView without the point {missing[0]!r} was made: a block needs {', '.join(_REQUIRED_POINTS)}; "
                "queries and keys go together, and attn_in goes with scores"
            )

    @property
    def shows_scores(self) -> bool:
        """Whether attention weights are known while attention stays fused."""
        return any(name in self.points for name in SCORE_POINTS)


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
        """The positions of the image tokens."""
        return slice(len(self.prefix), self.count)

    @property
    def kinds(self) -> list[str]:
        """``cls``, ``reg0`` … for prefix tokens, ``image`` for the others."""
        return [*self.prefix, *["image"] * (self.grid[0] * self.grid[1])]


@checked
@dataclass(frozen=True, eq=False)
class Readout:
    """One head's share of the logits; the model's logits are the weighted sum over its readouts.

    Args:
        space: class space of the head.
        pooled: the tokens that the head pools, such as ``slice(0, 1)`` for ``[CLS]``.
        tokens: the tokens that are projected through this class space, by default all; of several readouts with
            the same token, the last one counts.
        weight: weight of these logits in the sum.
        counts_bias: False where another readout already adds the bias (one head, split in two).

    Examples:
        >>> import torch
        >>> from classlens import ClassSpace, Readout
        >>> space = ClassSpace(before=(), after=(), weight=torch.eye(3), bias=None)
        >>> Readout(space, pooled=slice(1, None)).logits(torch.arange(12.0).reshape(1, 4, 3))
        tensor([[6., 7., 8.]])
    """

    space: ClassSpace
    pooled: slice
    tokens: slice = field(default_factory=lambda: slice(None))
    weight: float = 1.0
    counts_bias: bool = True

    def logits(
        self, last: Float[Tensor, "image token width"], mask: Bool[Tensor, "image token"] | None = None
    ) -> Float[Tensor, "image classes"]:
        """This readout's share of the model's logits, pooled over the tokens of ``mask`` alone, if given."""
        return self.classify(self.head_input(self.space, last, mask))

    def head_input(
        self,
        space: ClassSpace,
        states: Float[Tensor, "image token width"],
        mask: Bool[Tensor, "image token"] | None = None,
    ) -> Float[Tensor, "image outer"]:
        """What enters the head from the tokens of ``states`` that it pools, through a class space of this head."""
        if mask is None:
            return space.head_input(states[:, self.pooled])
        rows = zip(states[:, self.pooled], mask[:, self.pooled], strict=True)
        return torch.cat([space.head_input(of_image[kept][None]) for of_image, kept in rows])

    def classify(self, inputs: Float[Tensor, "*rows outer"]) -> Float[Tensor, "*rows classes"]:
        """This readout's share of the logits, from inputs of the head."""
        logits = self.space.classify(inputs)
        if not self.counts_bias and self.space.bias is not None:
            logits = logits - self.space.bias.to(logits.dtype)
        return logits * self.weight


def _output_itself(output: Any) -> Tensor:
    logits: Tensor = output
    return logits


@checked
@dataclass(frozen=True, eq=False)
class ModelView:
    """A model as classlens sees it, with the user's own modules and parameters.

    Args:
        module: the model, in evaluation mode or not.
        name: its name in messages.
        blocks: the transformer blocks in their order.
        readouts: the heads.
        prefix: names of the tokens before the image tokens, such as ``("cls", "reg0")``.
        pooling: the head's pooling in a word, such as ``cls`` or ``avg``.
        input_size: height and width of the pixels.
        grid: from height and width of the pixels to rows and columns of image tokens.
        any_size: whether the model takes other sizes than ``input_size``; default False.
        channels: channels of the pixels; default 3.
        logits_of: from the module's output to the logits ``[image, category]``; by default the output itself.
        unfused: context manager within which the weights of attention pass the point ``attention``.
        exposing_coefficients: context manager within which memory coefficients pass ``attn_coefficients``.
        library: the library that made the model; ``own`` for a user's description.
        has_mid: False where attention and MLP share one residual add, so that ``resid_mid`` does not exist.
        class_names: a name for each row of the head.
        transform: from a picture to pixels ``[channel, height, width]``.
        size_option: the library's option for another input size.
        tuned_lens: for each block, a map that its tokens pass before they are projected.
        problem_type: what the outputs mean: ``single_label_classification``, ``multi_label_classification`` or
            ``regression``. One output that is no label is a number, whatever this says.

    Examples:
        >>> import classlens
        >>> view = classlens.load("builtin:cifar10").view
        >>> view.pooling, view.num_classes, view.tokens((32, 32)).grid
        ('cls', 10, (8, 8))
    """

    module: nn.Module
    name: str
    blocks: tuple[BlockView, ...]
    readouts: tuple[Readout, ...]
    prefix: tuple[str, ...]
    pooling: str
    input_size: tuple[int, int]
    grid: Callable[[tuple[int, int]], tuple[int, int]] = field(repr=False)
    any_size: bool = False
    channels: int = 3
    logits_of: Callable[[Any], Tensor] = _output_itself
    unfused: Callable[[], AbstractContextManager[Any]] = nullcontext
    exposing_coefficients: Callable[[], AbstractContextManager[Any]] = nullcontext
    library: str = "own"
    has_mid: bool = True
    class_names: Sequence[str] | None = None
    transform: Callable[[Any], Tensor] | None = field(default=None, repr=False)
    size_option: str | None = None
    tuned_lens: tuple[Step, ...] | None = field(default=None, repr=False)
    problem_type: ProblemType = "single_label_classification"

    @property
    def exclusive(self) -> bool:
        """Whether the outputs are classes that exclude each other, so that they have ranks and a softmax."""
        return self.problem_type == "single_label_classification" and self.num_classes > 1

    @property
    def multi_label(self) -> bool:
        """Whether each output is a label with a probability of its own, by sigmoid."""
        return self.problem_type == "multi_label_classification"

    def probabilities(self, logits: Float[Tensor, "*rows category"]) -> Float[Tensor, "*rows category"] | None:
        """Probabilities of the outputs; None for numbers in a unit of their own."""
        if self.exclusive:
            return logits.softmax(dim=-1)
        return logits.sigmoid() if self.multi_label else None

    def require_exclusive(self, what: str, instead: str) -> None:
        """Raises ClasslensError where outputs are not classes that exclude each other, for ``what`` compares them."""
        if not self.exclusive:
            kind = "labels with a sigmoid each" if self.multi_label else "numbers, not classes, as outputs"
            raise ClasslensError(
                f"model {self.name!r} has {kind}, and {what} compares classes that exclude each other: {instead}"
            )

    @property
    def space(self) -> ClassSpace:
        """The class space of the first readout: that of ``[CLS]``, or of averaged tokens."""
        return self.readouts[0].space

    @property
    def pooled(self) -> slice:
        """The tokens that the first readout pools: the queries of an explanation."""
        return self.readouts[0].pooled

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.space.num_classes

    @property
    def device(self) -> torch.device:
        """The device of the class embedding."""
        return self.space.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the model's first parameter."""
        return next(self.module.parameters()).dtype

    def _axis_sizes(self) -> dict[str, int]:
        return {"channel": self.channels}

    def run(self, pixels: Float[Tensor, "image channel height width"]) -> Float[Tensor, "row category"]:
        """The model's own logits; a hook may put rows of other images in the place of the embeddings."""
        self.tokens((pixels.shape[2], pixels.shape[3]))
        return self.logits_of(self.module(pixels))

    def space_at(self, space: ClassSpace, site: str, block: int) -> ClassSpace:
        """A class space for the tokens at a site of a block: with a tuned lens, after the block's translator.

        The input of a block passes the translator of the block before it; the embeddings pass none.
        """
        number = block - 1 if site in ("embed", "resid_pre") else block
        return space if self.tuned_lens is None or number < 0 else space.behind(self.tuned_lens[number])

    def space_by_site(self, space: ClassSpace) -> Callable[[str, int], ClassSpace] | None:
        """``space_at`` for one class space; None without a tuned lens, as every site has the same one."""
        return None if self.tuned_lens is None else partial(self.space_at, space)

    def logits_after(
        self,
        block: int,
        states: Float[Tensor, "image token width"],
        mask: Bool[Tensor, "image token"] | None = None,
    ) -> Float[Tensor, "image category"]:
        """The logits of the tokens after a block, pooled as the model pools those after the last one."""
        return self.logits(states if self.tuned_lens is None else self.tuned_lens[block](states), mask)

    def logits(
        self, last: Float[Tensor, "image token width"], mask: Bool[Tensor, "image token"] | None = None
    ) -> Float[Tensor, "image category"]:
        """The model's logits from its last hidden states, pooled over the tokens of ``mask`` alone, if given."""
        return torch.stack([readout.logits(last, mask) for readout in self.readouts]).sum(dim=0)

    def spaces(self, count: int) -> list[tuple[ClassSpace, Tensor | slice]]:
        """Each class space with its tokens; together they are all ``count`` tokens."""
        if len(self.readouts) == 1:
            return [(self.space, slice(None))]
        owner = torch.zeros(count, dtype=torch.int64)
        for number, readout in enumerate(self.readouts):
            owner[readout.tokens] = number
        groups = [(readout.space, torch.nonzero(owner == number)[:, 0]) for number, readout in enumerate(self.readouts)]
        return [(space, tokens) for space, tokens in groups if len(tokens)]

    def tokens(self, size: tuple[int, int]) -> Tokens:
        """The tokens for pixels of a height and width; raises ClasslensError for a size that the model cannot take."""
        if size != self.input_size and not self.any_size:
            other = f", or load the model with {self.size_option}={size}" if self.size_option else ""
            raise ClasslensError(
                f"pixels are {size[0]}×{size[1]}, but model {self.name!r} takes "
                f"{self.input_size[0]}×{self.input_size[1]}: resize them{other}"
            )
        return Tokens(self.prefix, self.grid(size))
