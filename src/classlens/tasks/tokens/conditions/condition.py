"""The record of a condition: a change of the model or its tokens, and the decoder of its states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool
from torch import Tensor

from classlens.forward.edits.edit import Edit

DecoderName = Literal["class_embedding", "tuned_lens", "probes"]


def no_edits(kept: Bool[Tensor, "image token"]) -> tuple[Edit, ...]:
    """The unedited forward pass."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One way to measure a model.

    Args:
        label: name of the condition in figures.
        about: one line for help and documentation.
        edits: edits of the forward pass, from the mask of kept tokens (``[image, token]``; prefix tokens are kept).
        model: the model or its random twin.
        decoder: what turns states into class scores.
        keeps: image tokens: ``"class"`` those that show the class, ``"context"`` the others, ``"ordinary"`` those
            whose norm after the last block is no outlier, or ``"all"``.
        needs_cls: whether the model needs a ``[CLS]`` token.
        in_paper: whether `classlens paper` measures it.
        color: color of the condition in figures; None takes a free one.
    """

    label: str
    about: str
    edits: Callable[[Bool[Tensor, "image token"]], tuple[Edit, ...]] = no_edits
    model: Literal["model", "random_twin"] = "model"
    decoder: DecoderName = "class_embedding"
    keeps: Literal["all", "class", "context", "ordinary"] = "all"
    needs_cls: bool = False
    in_paper: bool = True
    color: str | None = None

    @property
    def needs_masks(self) -> bool:
        """Whether the data need masks of the classes."""
        return self.keeps in ("class", "context")
