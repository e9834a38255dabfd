"""The objective of a tuned lens and one epoch of its training.

The divergence of the decoded states of each block from the model's output is minimized.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from classlens.core.arrays import Array
from classlens.core.steps import Projection
from classlens.errors import ClasslensError
from classlens.forward.run import evaluating
from classlens.lens.tuned_lens import TunedLens
from classlens.models.view import ModelView
from classlens.tasks.tuned_lens.state_cache import TrainingStates

TokenChoice = Literal["all", "pooled"]
# Relative decrease of an objective that counts as an improvement.
_IMPROVEMENT = 1e-4
# Divergences below this are rounding, as with the identity of the last block: Adam would follow the noise.
_ROUNDING = 1e-6


@dataclass(eq=False)
class TrainingState:
    """Everything that a resumed training needs; lists have one entry per block."""

    weight: list[Tensor]
    bias: list[Tensor]
    best: TunedLens
    least: list[float]
    """Least objective on held-out images so far."""
    plain: list[float]
    """Divergence of the plain projection."""
    tuned: list[float]
    """Divergence with the best translator."""
    chosen: list[int]
    """Epoch of the best translator; 0 is the identity."""
    epoch: int = 0
    step: int = 0
    """Batches of the present epoch that are done."""
    trained: bool = False
    """Whether any batch was trained on."""
    epochs_without_improvement: int = 0
    optimizer: dict[str, Any] = field(default_factory=dict)


class TunedLensTrainer:
    """Trains the translators of all blocks.

    Args:
        view: the model.
        states: states after every block.
        train, held_out: indices of the images.
        tokens: which tokens the objective covers.
        control: match the output for another image.
        seed: random seed of the order of images.
    """

    def __init__(
        self,
        view: ModelView,
        states: TrainingStates,
        train: Array,
        held_out: Array,
        tokens: TokenChoice,
        control: bool,
        seed: int,
    ) -> None:
        self._view, self._states = view, states
        self._train, self._held_out = train, held_out
        self._tokens, self._control, self._seed = tokens, control, seed

    def begin(self) -> TrainingState:
        """The identity and its divergences."""
        identity = TunedLens.identity(self._view)
        weight = [block.clone().to(self._view.device) for block in identity.weight]
        bias = [block.clone().to(self._view.device) for block in identity.bias]
        objective, plain = self._evaluate(weight, bias)
        return TrainingState(weight, bias, identity, objective, plain, list(plain), [0] * len(plain))

    def epoch(
        self,
        state: TrainingState,
        epochs: int,
        learning_rate: float,
        report: Callable[[int], None],
        save: Callable[[], None] = lambda: None,
    ) -> None:
        """Train on the training images that remain of an epoch and keep improved translators.

        ``report`` takes the images so far; ``save`` is called after each batch.
        """
        parameters = [*state.weight, *state.bias]
        for parameter in parameters:
            parameter.requires_grad_()
        optimizer = torch.optim.Adam(parameters, lr=learning_rate)
        if state.optimizer:
            optimizer.load_state_dict(state.optimizer)
        order = np.random.default_rng([self._seed, state.epoch]).permutation(self._train)
        size = self._states.batch_size
        steps = -(-len(order) // size)
        for blocks in self._states.batches(order[state.step * size :]):
            if self._trains(blocks):
                progress = (state.epoch + state.step / steps) / epochs
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * (1 + math.cos(math.pi * progress)) / 2
                self._backward(state, blocks)
                optimizer.step()
                state.trained = True
            state.step += 1
            state.optimizer = optimizer.state_dict()
            report(min(len(order), state.step * size))
            save()
        if not state.trained:
            raise ClasslensError(
                "no image to train on can be read, or has another beside it to match (control): give more images, "
                "another seed or a larger batch size"
            )
        for parameter in parameters:
            parameter.requires_grad_(False).grad = None
        state.optimizer = optimizer.state_dict()
        self._keep_improved(state)
        report(len(self._train) + len(self._held_out))

    def _trains(self, blocks: list[Tensor]) -> bool:
        """Whether a batch has an image, and for a control another one to match."""
        return bool(blocks) and (not self._control or len(blocks[0]) > 1)

    def _backward(self, state: TrainingState, blocks: list[Tensor]) -> None:
        """Gradients of the objective of each block by its own translator."""
        with evaluating(self._view.module), torch.enable_grad():
            for block, (x, target) in enumerate(self._with_targets(blocks)):
                if state.least[block] < _ROUNDING:
                    continue
                translator = state.weight[block], state.bias[block]
                objective = self._objective(self._divergences(Projection(*translator)(x), target))
                # Explicitly, because pools of the model have parameters that must not receive a gradient.
                for parameter, gradient in zip(translator, torch.autograd.grad(objective, translator), strict=True):
                    parameter.grad = gradient

    def _keep_improved(self, state: TrainingState) -> None:
        objective, divergence = self._evaluate(state.weight, state.bias)
        state.epoch, state.step = state.epoch + 1, 0
        improved = False
        for block, value in enumerate(objective):
            if value < state.least[block] * (1 - _IMPROVEMENT):
                state.least[block], state.tuned[block], state.chosen[block] = value, divergence[block], state.epoch
                state.best.weight[block], state.best.bias[block] = state.weight[block], state.bias[block]
                improved = True
        state.epochs_without_improvement = 0 if improved else state.epochs_without_improvement + 1

    @torch.no_grad()
    def _evaluate(self, weight: list[Tensor], bias: list[Tensor]) -> tuple[list[float], list[float]]:
        """Objective and divergence of the pooled logits from the output, per block, on held-out images."""
        objective, divergence = np.zeros(len(weight)), np.zeros(len(weight))
        images = matched = 0
        for blocks in filter(None, self._states.batches(self._held_out)):
            count = len(blocks[0])
            matches = self._trains(blocks)
            with evaluating(self._view.module):
                output = self._view.logits(blocks[-1])
                for block, (x, target) in enumerate(self._with_targets(blocks)):
                    translated = Projection(weight[block], bias[block])(x)
                    if matches:
                        objective[block] += float(self._objective(self._divergences(translated, target))) * count
                    divergence[block] += float(_kl(self._view.logits(translated), output).sum())
            images += count
            matched += count if matches else 0
        if not matched:
            raise ClasslensError(
                "no held-out image can be read, or has another beside it to match (control): give more images, "
                "another seed or a larger batch size"
            )
        # Python's numbers: a checkpoint of torch does not load NumPy's.
        return (objective / matched).tolist(), (divergence / images).tolist()

    @torch.no_grad()
    def constant(self) -> float:
        """Divergence of held-out outputs from the mean output of the training images."""

        def outputs(images: Array) -> Tensor:
            logits = []
            for blocks in filter(None, self._states.batches(images)):
                with evaluating(self._view.module):
                    logits.append(self._view.logits(blocks[-1]).double())
            return torch.cat(logits)

        mean = outputs(self._train).softmax(dim=-1).mean(dim=0)
        held_out = outputs(self._held_out)
        return float(_kl(mean.log().expand_as(held_out), held_out).mean())

    def _with_targets(self, blocks: list[Tensor]) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """The states of each block with the logits to match: pooled, then those of each class space."""
        last = blocks[-1].roll(1, dims=0) if self._control else blocks[-1]
        with torch.no_grad():
            target = [self._view.logits(last), *self._token_logits(last)]
        for x in blocks:
            yield x, target

    def _divergences(self, x: Tensor, target: list[Tensor]) -> list[Tensor]:
        logits = [self._view.logits(x), *self._token_logits(x)]
        return [_kl(values, wanted) for values, wanted in zip(logits, target, strict=True)]

    def _token_logits(self, x: Tensor) -> list[Tensor]:
        """Logits of every token by class space; empty where only pooled tokens count."""
        if self._tokens == "pooled":
            return []
        return [space.project(x[:, group]).flatten(0, 1) for space, group in self._view.spaces(x.shape[1])]

    def _objective(self, divergences: list[Tensor]) -> Tensor:
        pooled, *tokens = divergences
        return pooled.mean() if not tokens else (pooled.mean() + torch.cat(tokens).mean()) / 2


def _kl(logits: Tensor, target: Tensor) -> Tensor:
    """``KL(softmax(target) ‖ softmax(logits))`` of each row."""
    return F.kl_div(logits.log_softmax(-1), target.log_softmax(-1), reduction="none", log_target=True).sum(-1)
