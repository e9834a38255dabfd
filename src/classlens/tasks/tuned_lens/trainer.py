"""What a tuned lens is trained for, and how: the divergence of each block's reading from the model's output."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from classlens.core.maps import Projection
from classlens.errors import ClasslensError
from classlens.forward.run import evaluating
from classlens.lens.lens import Lens
from classlens.lens.tuned_lens import TunedLens
from classlens.tasks.tuned_lens.states import States

Which = Literal["all", "pooled"]
# What the objective of a block must fall by, as a share, to count as better.
_BETTER = 1e-4
# Below this a divergence is rounding, as that of the last block's identity is: Adam would make steps of its noise.
_ROUNDING = 1e-6


@dataclass(eq=False)
class TunerState:
    """Everything that a run which goes on needs."""

    weight: list[Tensor]
    bias: list[Tensor]
    best: TunedLens
    least: list[float]
    """The least objective of each block on held-out images so far."""
    plain: list[float]
    tuned: list[float]
    chosen: list[int]
    epoch: int = 0
    waited: int = 0
    optimizer: dict[str, Any] = field(default_factory=dict)


class Tuner:
    """The objective, and one epoch of training on it."""

    def __init__(
        self,
        lens: Lens,
        states: States,
        train: Any,
        held: Any,
        tokens: Which,
        control: bool,
        seed: int,
    ) -> None:
        self._view, self._states = lens.view, states
        self._train, self._held = train, held
        self._tokens, self._control, self._seed = tokens, control, seed

    def begin(self) -> TunerState:
        """The identity, and how far each block is from the model's output with it."""
        first = TunedLens.identity(self._view)
        weight = [one.clone().to(self._view.device) for one in first.weight]
        bias = [one.clone().to(self._view.device) for one in first.bias]
        objective, plain = self._measured(weight, bias)
        return TunerState(weight, bias, first, objective, plain, list(plain), [0] * len(plain))

    def epoch(self, state: TunerState, epochs: int, learning_rate: float, told: Callable[[int], None]) -> None:
        """Go over the training images once, and keep what has become better."""
        parameters = [*state.weight, *state.bias]
        for one in parameters:
            one.requires_grad_()
        optimizer = torch.optim.Adam(parameters, lr=learning_rate)
        if state.optimizer:
            optimizer.load_state_dict(state.optimizer)
        order = np.random.default_rng([self._seed, state.epoch]).permutation(self._train)
        steps = -(-len(order) // self._states.batch_size)
        images = 0
        for step, blocks in enumerate(self._states.batches(order)):
            if self._control and len(blocks[0]) == 1:  # there is no other image to match
                continue
            through = (state.epoch + step / steps) / epochs
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * (1 + math.cos(math.pi * through)) / 2
            with evaluating(self._view.module), torch.enable_grad():
                for number, (x, target) in enumerate(self._pairs(blocks)):
                    if state.least[number] < _ROUNDING:
                        continue
                    own = state.weight[number], state.bias[number]
                    losses = self._divergences(Projection(*own)(x), target)
                    # By name, since pools of the model have parameters of their own, which are to get no gradient.
                    for parameter, gradient in zip(own, torch.autograd.grad(self._objective(losses), own), strict=True):
                        parameter.grad = gradient
            optimizer.step()
            images += len(blocks[0])
            told(images)
        if not images:
            raise ClasslensError(
                "no image to train on can be read, or has another beside it to match (control): give more images, "
                "another seed or a larger batch size"
            )
        for one in parameters:
            one.requires_grad_(False).grad = None
        state.optimizer = optimizer.state_dict()
        objective, divergence = self._measured(state.weight, state.bias)
        state.epoch += 1
        better = False
        for block, value in enumerate(objective):
            if value < state.least[block] * (1 - _BETTER):
                state.least[block], state.tuned[block], state.chosen[block] = value, divergence[block], state.epoch
                state.best.weight[block], state.best.bias[block] = state.weight[block], state.bias[block]
                better = True
        state.waited = 0 if better else state.waited + 1
        told(len(self._train) + len(self._held))

    @torch.no_grad()
    def _measured(self, weight: list[Tensor], bias: list[Tensor]) -> tuple[list[float], list[float]]:
        """On held-out images, of each block: the objective, and the divergence of the pooled reading from the end."""
        objective = np.zeros(len(weight))
        divergence = np.zeros(len(weight))
        images = matched = 0
        for blocks in self._states.batches(self._held):
            with evaluating(self._view.module):
                output = self._view.logits(blocks[-1])
                for number, (x, target) in enumerate(self._pairs(blocks)):
                    moved = Projection(weight[number], bias[number])(x)
                    if not self._control or len(x) > 1:
                        objective[number] += float(self._objective(self._divergences(moved, target))) * len(x)
                    divergence[number] += float(_divergence(self._view.logits(moved), output).sum())
            images += len(blocks[0])
            matched += len(blocks[0]) if not self._control or len(blocks[0]) > 1 else 0
        if not matched:
            raise ClasslensError(
                "no image that is held out can be read, or has another beside it to match (control): give more images, "
                "another seed or a larger batch size"
            )
        # Numbers of Python's own: those of numpy are not read back by `_resumed`.
        return (objective / matched).tolist(), (divergence / images).tolist()

    @torch.no_grad()
    def constant(self) -> float:
        """The divergence of held-out outputs from the mean output of the training images."""

        def outputs(images: Any) -> Tensor:
            found = []
            for blocks in self._states.batches(images):
                with evaluating(self._view.module):
                    found.append(self._view.logits(blocks[-1]).double())
            return torch.cat(found)

        mean = outputs(self._train).softmax(dim=-1).mean(dim=0)
        held = outputs(self._held)
        return float(_divergence(mean.log().expand_as(held), held).mean())

    def _pairs(self, blocks: list[Tensor]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """The tokens of each block with the logits that are to be matched: pooled, then of each class space."""
        last = blocks[-1]
        if self._control:
            last = last.roll(1, dims=0)
        with torch.no_grad():
            target = [self._view.logits(last), *self._each(last)]
        for x in blocks:
            yield x, target

    def _divergences(self, x: Tensor, target: list[Tensor]) -> list[Tensor]:
        found = [self._view.logits(x), *self._each(x)]
        return [_divergence(one, other) for one, other in zip(found, target, strict=True)]

    def _each(self, x: Tensor) -> list[Tensor]:
        """What each token says by itself; nothing where only pooled tokens count."""
        if self._tokens == "pooled":
            return []
        return [space.project(x[:, group]).flatten(0, 1) for space, group in self._view.spaces(x.shape[1])]

    def _objective(self, losses: list[Tensor]) -> Tensor:
        pooled, *each = losses
        return pooled.mean() if not each else (pooled.mean() + torch.cat(each).mean()) / 2


def _divergence(found: Tensor, wanted: Tensor) -> Tensor:
    """``KL(softmax(wanted) ‖ softmax(found))`` of each row."""
    return F.kl_div(found.log_softmax(-1), wanted.log_softmax(-1), reduction="none", log_target=True).sum(-1)
