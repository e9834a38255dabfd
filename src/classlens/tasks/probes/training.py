"""Training of probes: passes over the training images, which a stopped run resumes from a checkpoint."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import torch
from torch import Tensor

from classlens.core.probes import LinearProbes
from classlens.engine.progress import Tracker
from classlens.engine.session import Session
from classlens.errors import ClasslensError, cause
from classlens.store.atomic import atomic_write
from classlens.store.probe_folder import ProbeFolder, ProbeTokens
from classlens.tasks.probes.logistic import LogisticFeatures
from classlens.tasks.probes.plan import Plan, make_plan, remaining_tokens
from classlens.tasks.probes.ridge import LeaveOneOut, RidgeSums
from classlens.tasks.states import STATES, StatesTask

Kind = Literal["ridge", "pooled", "logistic"]
ALPHAS = (0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4)
"""Candidates of leave-one-out."""
CHECKPOINT_SECONDS = 60.0
"""Least time between checkpoints within a pass; writing them takes at most a tenth of the time."""

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
        self._labels = torch.as_tensor(session.labels, dtype=torch.int64)
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
        for number, planned in enumerate(passes, start=1):
            doing = f"pass {number} of {len(passes)}" if len(passes) > 1 else "training images"
            tokens = remaining_tokens(planned, self._folder.trained())
            checkpoint = Checkpoint(self._folder, planned)
            if self._alpha == "loo":
                choices = self._choices(tokens, plan.buffer, checkpoint, tracker, doing)
                for wanted in tokens:
                    self._write(wanted, *choices.pop(wanted).solve())
            else:
                sums = {wanted: self._learner(wanted) for wanted in tokens}
                self._sweep(sums, "sums", plan.buffer, checkpoint, tracker, doing)
                alpha = float(self._alpha)
                for solved, wanted in enumerate(tokens, start=1):
                    tracker.advance(0, doing=f"solving {solved} of {len(tokens)}")
                    probes = sums.pop(wanted).solve(alpha)
                    self._write(wanted, probes, torch.full((self._count(wanted),), alpha))
            checkpoint.remove()

    def _choices(
        self,
        tokens: Sequence[ProbeTokens],
        buffer: int,
        checkpoint: Checkpoint,
        tracker: Tracker,
        doing: str,
    ) -> dict[ProbeTokens, LeaveOneOut]:
        """Leave-one-out errors of every alpha, from two sweeps."""
        saved = checkpoint.load()
        if saved is not None and saved["stage"] == "choices":
            tracker.advance(len(self._session.dataset))
            choices = {wanted: LeaveOneOut.from_state(saved["states"][wanted.key]) for wanted in tokens}
        else:
            sums: dict[ProbeTokens, Any] = {wanted: self._learner(wanted) for wanted in tokens}
            self._sweep(sums, "sums", buffer, checkpoint, tracker, doing)
            tracker.advance(0, doing="decomposing")
            choices = {wanted: sums.pop(wanted).leave_one_out(ALPHAS) for wanted in tokens}
        self._sweep(choices, "choices", buffer, checkpoint, tracker, f"{doing}, leaving out")
        return choices

    def _sweep(
        self,
        learners: Mapping[ProbeTokens, Learner],
        stage: str,
        buffer: int,
        checkpoint: Checkpoint,
        tracker: Tracker,
        doing: str,
    ) -> None:
        """Update the learners with the states of all training images, resumed from a checkpoint of this stage."""
        first = checkpoint.restore(stage, learners)
        tracker.advance(first, doing=doing)
        held: dict[ProbeTokens, Tensor] = {}
        labels: list[Tensor] = []
        filled, finished = 0, first

        def flush() -> None:
            nonlocal filled
            if filled:
                label = torch.cat(labels)
                for tokens, states in held.items():
                    self._update(learners[tokens], states[:filled], label)
            filled = 0
            labels.clear()

        try:
            for result in self._session.stream(self._session.job(StatesTask(tuple(learners))), first):
                images = slice(result.images.start, result.images.stop)
                keep = torch.as_tensor(result.readable) & (self._labels[images] >= 0)
                count = int(keep.sum())
                if filled + count > buffer:
                    flush()
                    finished = images.start
                    checkpoint.save_if_due(stage, finished, learners)
                for tokens in learners:
                    states = torch.from_numpy(result.arrays[STATES][tokens.key])
                    if tokens not in held:
                        held[tokens] = states.new_empty(buffer, *states.shape[1:])
                    held[tokens][filled : filled + count] = states[keep]
                labels.append(self._labels[images][keep])
                filled += count
                tracker.advance(len(result.images), doing=doing)
        except BaseException:
            if finished > first:
                with suppress(ClasslensError):  # the error that stopped the run says more
                    checkpoint.save(stage, finished, learners)
            raise
        flush()

    def _update(self, learner: Learner, states: Tensor, label: Tensor) -> None:
        """Add states ``[image, token, width]``; the tokens of a pooled probe are rows of one probe."""
        tokens = states.shape[1]
        if self._pooled:
            states, label = states.flatten(0, 1)[:, None], label.repeat_interleave(tokens)
        if isinstance(learner, LeaveOneOut):
            learner.update(states, label, rows_an_image=tokens if self._pooled else 1)
        else:
            learner.update(states, label)

    def _learner(self, tokens: ProbeTokens) -> RidgeSums | LogisticFeatures:
        learner = LogisticFeatures if self._kind == "logistic" else RidgeSums
        return learner(self._count(tokens), self._width, self._classes)

    def _count(self, tokens: ProbeTokens) -> int:
        """Number of probes of some tokens."""
        return 1 if self._pooled else tokens.stop - tokens.start

    def _write(self, tokens: ProbeTokens, probes: LinearProbes, alpha: Tensor) -> None:
        self._folder.write(tokens, probes, alpha)
        self.trained += len(alpha)


class Checkpoint:
    """The sums of an unfinished pass, in a file beside the probes."""

    def __init__(self, folder: ProbeFolder, planned: Sequence[ProbeTokens]) -> None:
        self._path = folder.folder / "training.checkpoint"
        text = json.dumps([folder.digest, [list(tokens) for tokens in planned]])
        self._key = hashlib.sha256(text.encode()).hexdigest()
        self._saved, self._cost = time.perf_counter(), 0.0

    def load(self) -> dict[str, Any] | None:
        """``stage``, ``next`` image and ``states`` by key; None without a checkpoint of this pass."""
        if not self._path.exists():
            return None
        try:
            saved: dict[str, Any] = torch.load(self._path, weights_only=True)
        except Exception as error:  # torch does not bound what a damaged file raises
            raise ClasslensError(
                f"checkpoint {str(self._path)!r} cannot be read ({cause(error)}): remove it to train this pass anew"
            ) from None
        return saved if saved.get("key") == self._key else None

    def restore(self, stage: str, learners: Mapping[ProbeTokens, Learner]) -> int:
        """Put the learners where a stopped run left them; returns the index of the next image."""
        saved = self.load()
        if saved is None or saved["stage"] != stage:
            return 0
        for tokens, learner in learners.items():
            if not isinstance(learner, LeaveOneOut):  # made from its state
                learner.restore(saved["states"][tokens.key])
        return int(saved["next"])

    def save_if_due(self, stage: str, next_image: int, learners: Mapping[ProbeTokens, Learner]) -> None:
        """Save when enough time has passed."""
        if time.perf_counter() - self._saved >= max(CHECKPOINT_SECONDS, 10 * self._cost):
            self.save(stage, next_image, learners)

    def save(self, stage: str, next_image: int, learners: Mapping[ProbeTokens, Learner]) -> None:
        """Write the state of the learners, completely or not at all."""
        started = time.perf_counter()
        states = {tokens.key: learner.state() for tokens, learner in learners.items()}
        try:
            with atomic_write(self._path) as path:
                torch.save({"key": self._key, "stage": stage, "next": next_image, "states": states}, path)
        except OSError as error:
            raise ClasslensError(
                f"checkpoint {str(self._path)!r} cannot be written ({cause(error)}): make room and run the same "
                "command again to resume"
            ) from None
        self._saved = time.perf_counter()
        self._cost = self._saved - started

    def remove(self) -> None:
        """Remove the file once the probes of the pass are written."""
        self._path.unlink(missing_ok=True)
