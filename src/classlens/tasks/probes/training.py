"""Training of probes: passes over the training images, which a stopped run resumes from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from classlens.core.probes import LinearProbes
from classlens.engine.progress import Tracker
from classlens.engine.session import Session
from classlens.store.probe_folder import ProbeFolder, ProbeTokens
from classlens.tasks.probes.checkpoint import Checkpoint, Saved, Stage, remove_checkpoint
from classlens.tasks.probes.logistic import LogisticFeatures
from classlens.tasks.probes.plan import Plan, make_plan, remaining_tokens
from classlens.tasks.probes.ridge import LeaveOneOut, RidgeSums
from classlens.tasks.states_task import STATES, StatesTask

Kind = Literal["ridge", "pooled", "logistic"]
ALPHAS = (0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4)
"""Candidates of leave-one-out."""

Learner = RidgeSums | LogisticFeatures | LeaveOneOut


class ProbeTrainer:
    """Trains the probes of a plan, pass by pass.

    Args:
        session: model and training images.
        kind: ``ridge``, ``pooled`` or ``logistic``.
        alpha: regularization, or ``"loo"`` for leave-one-out.
        folder: where the probes are written.
    """

    def __init__(self, session: Session, kind: Kind, alpha: float | Literal["loo"], folder: ProbeFolder) -> None:
        self._session, self._kind, self._alpha, self._folder = session, kind, alpha, folder
        self._width = session.lens.view.blocks[0].attn.weight.shape[0]
        self._classes = session.lens.view.num_classes
        self.trained = 0

    @property
    def _pooled(self) -> bool:
        return self._kind == "pooled"

    def plan(self, tokens: Sequence[ProbeTokens], ram: int) -> Plan:
        """The passes of an undisturbed run: sums in other groups would differ in their last digits."""
        if not remaining_tokens(tokens, self._folder.trained()):
            return Plan((), 1)
        width, images = self._width, len(self._session.dataset)
        if self._kind == "logistic":
            probe_bytes = LogisticFeatures.bytes_of(width, images)
        else:
            probe_bytes = RidgeSums.bytes_of(1, width, self._classes)
            if self._alpha == "loo":
                probe_bytes = max(probe_bytes, LeaveOneOut.bytes_of(1, width, self._classes))
        rows = tokens[0].stop - tokens[0].start if self._pooled else 1
        dtype = torch.promote_types(self._session.lens.view.dtype, torch.float32)
        return make_plan(
            tokens,
            ram,
            probe_bytes=probe_bytes,
            feature_bytes=dtype.itemsize * width * rows,
            least_images=self._session.batch_size,
            pooled=self._pooled,
            images=images,
        )

    def passes(self, plan: Plan) -> list[tuple[ProbeTokens, ...]]:
        """Passes of a plan with tokens whose probes are not trained yet."""
        trained = self._folder.trained()
        return [tokens for tokens in plan.passes if remaining_tokens(tokens, trained)]

    def train(self, plan: Plan, tracker: Tracker) -> None:
        """Train the remaining probes of a plan and write them."""
        passes = self.passes(plan)
        with self._session.connected() if passes else nullcontext():
            for number, planned in enumerate(passes, start=1):
                doing = f"pass {number} of {len(passes)}" if len(passes) > 1 else "training images"
                self._train_pass(planned, _Sweep(self._session, self._pooled, plan.buffer, tracker, doing))
        remove_checkpoint(self._folder)  # also one that was left between its last probes and the end of the run

    def _train_pass(self, planned: Sequence[ProbeTokens], sweep: _Sweep) -> None:
        tokens = remaining_tokens(planned, self._folder.trained())
        checkpoint = Checkpoint(self._folder, planned)
        saved = checkpoint.load(tokens) or Saved("sums", 0, {})
        if self._alpha == "loo":
            choices = self._choices(tokens, saved, sweep, checkpoint)
            for wanted in tokens:
                self._write(wanted, *choices.pop(wanted).solve())
        else:
            sums = self._sums(tokens, saved, sweep, checkpoint)
            alpha = float(self._alpha)
            for number, wanted in enumerate(tokens, start=1):
                sweep.tracker.advance(0, doing=f"solving {number} of {len(tokens)}")
                self._write(wanted, sums.pop(wanted).solve(alpha), torch.full((self._count(wanted),), alpha))
        remove_checkpoint(self._folder)

    def _sums(
        self, tokens: Sequence[ProbeTokens], saved: Saved, sweep: _Sweep, checkpoint: Checkpoint
    ) -> dict[ProbeTokens, RidgeSums | LogisticFeatures]:
        """Sums or features of all training images."""
        sums = {wanted: self._learner(wanted, saved.states.pop(wanted.key, None)) for wanted in tokens}
        sweep.run(sums, "sums", saved.next_image, checkpoint)
        return sums

    def _choices(
        self, tokens: Sequence[ProbeTokens], saved: Saved, sweep: _Sweep, checkpoint: Checkpoint
    ) -> dict[ProbeTokens, LeaveOneOut]:
        """Leave-one-out errors of every alpha, from two sweeps."""
        if saved.stage == "errors":
            first = saved.next_image
            sweep.tracker.resume(len(self._session.dataset))
            choices = {wanted: LeaveOneOut.from_state(saved.states.pop(wanted.key)) for wanted in tokens}
        else:
            first = 0
            sums: dict[ProbeTokens, Any] = self._sums(tokens, saved, sweep, checkpoint)
            sweep.tracker.advance(0, doing="decomposing")
            choices = {wanted: sums.pop(wanted).leave_one_out(ALPHAS) for wanted in tokens}
        sweep.run(choices, "errors", first, checkpoint)
        return choices

    def _learner(self, tokens: ProbeTokens, state: Mapping[str, Any] | None) -> RidgeSums | LogisticFeatures:
        kind = LogisticFeatures if self._kind == "logistic" else RidgeSums
        learner = kind(self._count(tokens), self._width, self._classes)
        if state is not None:
            learner.restore(state)
        return learner

    def _count(self, tokens: ProbeTokens) -> int:
        """Number of probes of these tokens."""
        return 1 if self._pooled else tokens.stop - tokens.start

    def _write(self, tokens: ProbeTokens, probes: LinearProbes, alpha: Tensor) -> None:
        self._folder.write(tokens, probes, alpha)
        self.trained += len(alpha)


@dataclass(frozen=True, eq=False)
class _Sweep:
    """One run of the model over the training images, whose states are added to learners a buffer at a time."""

    session: Session
    pooled: bool
    buffer: int
    tracker: Tracker
    doing: str

    def run(self, learners: Mapping[ProbeTokens, Learner], stage: Stage, first: int, checkpoint: Checkpoint) -> None:
        """Update the learners with the states of the training images from image ``first`` on."""
        doing = f"{self.doing}, leaving out" if stage == "errors" else self.doing
        self.tracker.resume(first, doing)
        session, all_labels = self.session, torch.as_tensor(self.session.labels, dtype=torch.int64)
        held: dict[ProbeTokens, Tensor] = {}
        labels: list[Tensor] = []
        filled = 0
        # The learners have seen the images before this one; None while they are being updated.
        next_image: int | None = first

        def flush(stop: int) -> None:
            nonlocal filled, next_image
            next_image = None
            if filled:
                label = torch.cat(labels)
                for tokens, states in held.items():
                    self._update(learners[tokens], states[:filled], label)
            labels.clear()
            filled, next_image = 0, stop

        try:
            for result in session.stream(session.job(StatesTask(tuple(learners))), first):
                images = slice(result.images.start, result.images.stop)
                keep = torch.as_tensor(result.readable) & (all_labels[images] >= 0)
                count = int(keep.sum())
                if filled + count > self.buffer:
                    flush(images.start)
                    checkpoint.save_if_due(stage, images.start, learners)
                for tokens in learners:
                    states = torch.from_numpy(result.arrays[STATES][tokens.key])
                    if tokens not in held:
                        held[tokens] = states.new_empty(self.buffer, *states.shape[1:])
                    held[tokens][filled : filled + count] = states[keep]
                labels.append(all_labels[images][keep])
                filled += count
                self.tracker.advance(len(result.images), doing=doing)
        except BaseException:
            if next_image is not None and next_image > first:
                checkpoint.save(stage, next_image, learners)
            raise
        flush(len(session.dataset))

    def _update(self, learner: Learner, states: Tensor, label: Tensor) -> None:
        """Add states ``[image, token, width]``; the tokens of a pooled probe are rows of one probe."""
        tokens = states.shape[1]
        if self.pooled:
            states, label = states.flatten(0, 1)[:, None], label.repeat_interleave(tokens)
        if isinstance(learner, LeaveOneOut):
            learner.update(states, label, rows_per_image=tokens if self.pooled else 1)
        else:
            learner.update(states, label)
