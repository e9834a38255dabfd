"""Contributions of a batch, from what passes while the model runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from classlens.core.arrays import Array
from classlens.core.attention_facts import attention_distance, attention_entropy
from classlens.core.steps import compute_dtype
from classlens.core.top_tokens import Candidates, TopTokens
from classlens.data.loading import Batch
from classlens.explain.attribution import attribute_each
from classlens.explain.units import UnitContributions
from classlens.forward.hooks import Receiver
from classlens.forward.recorder import pooled_queries
from classlens.forward.recording import Recording
from classlens.lens.directions import Directions
from classlens.models.view import SCORE_POINTS, SHARED_POINTS, ModelView, Tokens
from classlens.tasks.tokens.attribution.schema import ATTRIBUTION, UNITS, AttributionAxes
from classlens.tasks.tokens.attribution.tally import TallyPart

_POOLED_POINTS = ("embed", "attn_out", "mlp_out", "attn_raw", "mlp_raw", "attn_joined", "mlp_joined")
_COEFFICIENTS = "mlp_coefficients"


class AttributionCollector:
    """Keeps what contributions of one batch are computed from; image tokens are reduced at once.

    Args:
        view: the model.
        tokens: its tokens.
        axes: sizes, and whether units are measured.
        batch: the images.
        directions: directions in the place of units.
        strongest: the strongest tokens of earlier batches by group, which grow.
    """

    def __init__(
        self,
        view: ModelView,
        tokens: Tokens,
        axes: AttributionAxes,
        batch: Batch,
        strongest: Mapping[str, TopTokens],
        directions: Directions | None = None,
    ) -> None:
        self._view, self._tokens, self._axes, self._batch, self._strongest = view, tokens, axes, batch, strongest
        self._units, self._directions = UNITS in strongest, directions
        self._queries = pooled_queries(view, tokens.count)
        self._pooled = slice(0, int(self._queries[-1]) + 1)
        self._readable = torch.from_numpy(batch.readable)
        self._images = np.array(batch.images)[batch.readable]
        self._activations: dict[tuple[str, int], Tensor] = {}
        self._passing: dict[str, Tensor] = {}
        facts = torch.full((len(batch.images), axes.blocks, axes.heads), torch.nan)
        self._distance, self._entropy = facts, facts.clone()
        self._candidates: list[Candidates] = []
        self._active = np.zeros(axes.rows(UNITS), dtype=np.int64)

    @property
    def receivers(self) -> dict[str, Receiver]:
        """Functions of block and tensor by point."""
        in_steps = not all(block.shows_scores for block in self._view.blocks)
        weights = ("attention",) if in_steps else (*SCORE_POINTS, *SHARED_POINTS)
        receivers: dict[str, Receiver] = {name: partial(self._keep, name) for name in _POOLED_POINTS}
        receivers |= {name: partial(self._pass, name) for name in ("values", *weights)}
        receivers["attn_out"] = self._attend
        if self._units and self._directions is None:
            receivers[_COEFFICIENTS] = self._read_units
        elif self._units and self._directions is not None:
            site, directions = self._directions.site, self._directions
            keep = receivers.get(site)

            def read(block: int, x: Tensor) -> None:
                if keep is not None:
                    keep(block, x)
                if block == directions.block:
                    self._read_units(block, directions.coefficients(x))

            receivers[site] = read
        return receivers

    def _keep(self, name: str, block: int, x: Tensor) -> None:
        self._activations[name, block] = x[:, self._pooled].clone()

    def _pass(self, name: str, block: int, x: Tensor) -> None:
        self._passing[name] = x

    def _attend(self, block: int, x: Tensor) -> None:
        """Reduce the attention of a block, whose tensors have all passed."""
        self._keep("attn_out", block, x)
        passing, self._passing = self._passing, {}
        values = passing.pop("values")
        self._activations["values", block] = values.clone()  # not the joint projection that it is a part of
        if "attention" in passing:
            weights = passing["attention"].to(self._dtype)
        else:
            passed = {name: x.to(self._dtype) for name, x in passing.items()}
            every = torch.arange(self._tokens.count, device=self._view.device)
            weights = self._view.blocks[block].scores(passed, every).softmax(dim=-1)
        self._activations["attention", block] = weights[:, :, self._queries.to(weights.device)]
        heads = weights.shape[1]
        self._distance[:, block, :heads] = attention_distance(weights, self._tokens.grid).float().cpu()
        self._entropy[:, block, :heads] = attention_entropy(weights).float().cpu()

    def _read_units(self, block: int, x: Tensor) -> None:
        """Reduce the coefficients of image tokens; keep those of pooled ones."""
        self._keep(_COEFFICIENTS, block, x)
        read = x[:, self._tokens.image].float().contiguous()
        if not bool(self._readable.all()):
            read = read[self._readable.to(read.device)]
        first = block * self._axes.units
        rows = range(first, first + read.shape[-1])
        active = (read.flatten(0, 1) > 0).sum(dim=0, dtype=torch.int32)  # a fraction of the time that int64 takes
        self._active[rows.start : rows.stop] = active.cpu().numpy()
        self._add_candidates(UNITS, read, rows, self._candidates)

    def _add_candidates(
        self, group: str, values: Float[Tensor, "image token row"], rows: range, parts: list[Candidates]
    ) -> None:
        image = self._tokens.image
        parts.append(self._strongest[group].candidates(values, self._images, range(image.start, image.stop), rows))

    @property
    def _dtype(self) -> torch.dtype:
        return compute_dtype(self._view.dtype)

    def groups(
        self, logits: Float[Tensor, "image category"], label: Int[Tensor, " image"]
    ) -> Iterator[tuple[TallyPart, dict[str, Array]]]:
        """The candidates and the arrays of each group, once the model has run; labels are -1 where there is none."""
        recording = Recording(
            self._view, self._tokens, logits, self._batch.pixels, self._activations, queries=self._queries
        )
        classes = logits.shape[1]
        prediction = logits.argmax(dim=1)
        known = label.to(logits.device) >= 0
        index = torch.where(known, label.to(logits.device), prediction)
        target, predicted = (F.one_hot(index, classes).to(recording.dtype) for index in (index, prediction))
        mean = torch.full_like(target, 1 / classes)
        for group in self._strongest:
            if group == ATTRIBUTION:
                arrays, part = self._attribution(recording, [target, predicted, mean])
            else:
                arrays, part = self._top_units(recording, [target - mean, predicted - mean])
            for name, values in arrays.items():
                if name.startswith(("attention", "frame")):
                    values[~self._batch.readable] = np.nan
                    continue
                values[(~known).cpu().numpy(), 0] = -1 if values.dtype.kind == "i" else np.nan
                values[~self._batch.readable] = -1 if values.dtype.kind == "i" else np.nan
            yield part, arrays

    def _attribution(self, recording: Recording, weights: list[Tensor]) -> tuple[dict[str, Array], TallyPart]:
        parts = attribute_each(recording, weights)
        logits = torch.stack([(recording.logits.to(recording.dtype) * each).sum(dim=1) for each in weights], dim=1)
        stacked = {
            "embed_contribution": [part.embed for part in parts],
            "head_contribution": [part.attention.sum(dim=-1) for part in parts],
            "mlp_contribution": [part.mlp for part in parts],
            "bias_contribution": [part.bias for part in parts],
        }
        arrays = {name: torch.stack(values, dim=1).float().numpy() for name, values in stacked.items()}
        arrays["attributed_logit"] = logits.float().cpu().numpy()
        arrays["attention_distance"], arrays["attention_entropy"] = self._distance.numpy(), self._entropy.numpy()
        arrays["frame"] = self._batch.frames.copy()
        read = (parts[0].attention - parts[2].attention)[..., self._tokens.image].float()
        candidates: list[Candidates] = []
        by_row = read[self._readable].flatten(1, 2).transpose(1, 2)
        self._add_candidates(ATTRIBUTION, by_row, range(by_row.shape[2]), candidates)
        return arrays, self._part(ATTRIBUTION, candidates, None)

    def _top_units(self, recording: Recording, weights: list[Tensor]) -> tuple[dict[str, Array], TallyPart]:
        contributions = UnitContributions(recording, weights)
        each, numbers = [], []
        for (name, block), coefficients in self._activations.items():
            if name != _COEFFICIENTS:
                continue
            if self._directions is None:
                parts = [part for part, _ in contributions.of("mlp", block, coefficients)]
            else:
                directions = self._directions.directions.to(coefficients)
                parts = contributions.of_directions(directions, coefficients)
            each.append(torch.stack(parts, dim=1).float())
            numbers.append(block * self._axes.units + torch.arange(each[-1].shape[2], device=each[-1].device))
        every = torch.cat(each, dim=2)
        top = every.abs().topk(self._axes.listed, dim=2).indices
        values, units = every.gather(2, top), torch.cat(numbers)[top]
        silent = values == 0  # units that add nothing, such as features of an autoencoder that are off
        arrays = {
            "top_unit": units.masked_fill(silent, -1).to(torch.int32).cpu().numpy(),
            "top_unit_contribution": values.masked_fill(silent, torch.nan).cpu().numpy(),
        }
        return arrays, self._part(UNITS, self._candidates, self._active)

    def _part(self, group: str, parts: list[Candidates], active: Array | None) -> TallyPart:
        candidates = Candidates.joined(parts)
        self._strongest[group].add(candidates)
        grid = self._tokens.grid
        tokens = len(self._images) * grid[0] * grid[1]
        return TallyPart(group, self._batch.images, self._batch.content, candidates, active, tokens)
