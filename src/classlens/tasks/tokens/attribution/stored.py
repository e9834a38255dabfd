"""Groups of contributions in a store, and the strongest tokens of heads and units while a run goes on."""

from __future__ import annotations

import numpy as np
import torch

from classlens.core.arrays import Array
from classlens.core.memories import STRONGEST, memories, memory_scores
from classlens.data.dataset import Dataset
from classlens.errors import ClasslensError
from classlens.explain.registry import METHODS, is_defined
from classlens.lens.head_maps import block_maps
from classlens.lens.lens import Lens
from classlens.models.view import ModelView
from classlens.store.metadata import SHARD
from classlens.store.store import Store
from classlens.tasks.tokens.attribution.schema import (
    ATTRIBUTION,
    HEAD_MAPS,
    HEAD_TOKENS,
    UNIT_TOKENS,
    UNITS,
    AttributionAxes,
)
from classlens.tasks.tokens.attribution.tally import Tally, TallyPart

_PAIRS = 20
"""Entries of the map of a head that are kept."""
_MAX_MAPPED = 5000
"""Classes of a model beyond which maps of all heads take minutes."""
_TOKENS_OF = {ATTRIBUTION: HEAD_TOKENS, UNITS: UNIT_TOKENS}


class StoredAttribution:
    """Contributions of a store that is being written; they may join it after its conditions.

    ``changed`` is a note on images that have to be measured again.
    """

    def __init__(self, store: Store, axes: AttributionAxes, lens: Lens, dataset: Dataset) -> None:
        self._store, self._axes, self._lens, self._dataset = store, axes, lens, dataset
        self._tallies: dict[str, Tally] = {}
        self._unsaved: set[str] = set()
        for group in axes.groups:
            self._require_listed(group)
            store.add_group(group, axes.schema(group, dataset.names))
            self._tallies[group] = self._restored(group)

    def add(self, part: TallyPart) -> None:
        """Take the candidates of a batch."""
        self._tallies[part.group].add(part)
        self._unsaved.add(part.group)

    def save(self) -> None:
        """Write what has changed."""
        for group in sorted(self._unsaved):
            self._store.write_file(_file(group), self._tallies[group].to_bytes())
        self._unsaved.clear()

    def write_groups(self) -> None:
        """Write the groups of the whole data set."""
        for group, tally in self._tallies.items():
            rows = self._axes.heads if group == ATTRIBUTION else self._axes.units
            shape = (self._axes.blocks, rows, -1)
            empty = tally.top.image < 0
            value = np.where(empty, np.nan, tally.top.value).astype(np.float32)
            row = "head" if group == ATTRIBUTION else "unit"
            dims = ("block", row, "top")
            data: dict[str, tuple[tuple[str, ...], Array]] = {
                "token_image": (dims, tally.top.image.reshape(shape)),
                "token": (dims, tally.top.token.reshape(shape)),
                "contribution" if group == ATTRIBUTION else "coefficient": (dims, value.reshape(shape)),
            }
            sizes = {row: rows}
            if group == UNITS:
                share = (tally.active / max(tally.tokens, 1)).astype(np.float32)
                data["active_share"] = (dims[:2], share.reshape(shape[:2]))
                values = value_classes(self._lens.view, self._axes)
                data |= {name: ((*dims[:2], "class_rank"), array) for name, array in values.items()}
                sizes["class_rank"] = values["value_class"].shape[2]
            attrs = {"tokens_seen": tally.tokens, "images_seen": int(tally.included.sum())}
            self._store.write_group(_TOKENS_OF[group], data, self._axes.coords(**sizes), attrs)

    def _require_listed(self, group: str) -> None:
        """Raises ClasslensError for a store with another number of units for each image."""
        if group != UNITS or group not in self._store.groups():
            return
        listed = self._store.size(group, "top_unit", 2)
        if listed != self._axes.listed:
            raise ClasslensError(
                f"store {self._store.url!r} has {listed} units of each image, not {self._axes.listed}: give --units "
                f"{listed} (units={listed}), or another --out"
            )

    def _restored(self, group: str) -> Tally:
        """The tally of a run that goes on; images that it lacks become pending, and all do where others changed."""
        store, images = self._store, len(self._dataset)
        data = store.read_file(_file(group))
        tally = None if data is None else Tally.from_bytes(data, images, self._axes.rows(group))
        measured = store.status(group) != 0
        if tally is None or self._has_other_content(group, tally, measured):
            tally = Tally(images, self._axes.rows(group))
        lacking = np.flatnonzero(measured & ~tally.included)
        store.reset(group, sorted({int(image) // SHARD for image in lacking}))
        return tally

    def _has_other_content(self, group: str, tally: Tally, measured: Array) -> bool:
        """Whether an image has changed since its tokens were counted."""
        both = np.flatnonzero(measured & tally.included)
        stored = self._store.values(group, "content")
        pending = np.flatnonzero(~measured & tally.included)
        now = self._dataset.content(pending.tolist()) if len(pending) else np.zeros(0, dtype=np.int64)
        return bool((stored[both] != tally.content[both]).any() or (now != tally.content[pending]).any())


def value_classes(view: ModelView, axes: AttributionAxes) -> dict[str, Array]:
    """Classes that the value vector of each unit scores highest, with scores and cosines; -1 and NaN for no unit."""
    count = min(STRONGEST, view.num_classes)
    shape = (axes.blocks, axes.units, count)
    classes = np.full(shape, -1, dtype=np.int32)
    scores, cosines = np.full(shape, np.nan, dtype=np.float32), np.full(shape, np.nan, dtype=np.float32)
    embedding = view.space.embedding
    for block in range(axes.blocks):
        output = view.blocks[block].mlp
        best = memories(embedding, output).by_value[:, :count]
        units = torch.arange(len(best), device=best.device).repeat_interleave(count)
        score, cosine = memory_scores(embedding, output, best.flatten(), units)
        for array, values in ((classes, best), (scores, score), (cosines, cosine)):
            array[block, : len(best)] = values.reshape(best.shape).cpu().numpy()
    return {"value_class": classes, "value_score": scores, "value_cosine": cosines}


def write_head_maps(store: Store, view: ModelView, axes: AttributionAxes) -> None:
    """Write the maps of all heads between classes, unless values are no linear map or the classes are many."""
    if store.has_group(HEAD_MAPS) or view.num_classes > _MAX_MAPPED:
        return
    pairs = min(_PAIRS, view.num_classes**2)
    classes = np.full((2, axes.blocks, axes.heads, pairs), -1, dtype=np.int32)
    scores = np.full(classes.shape[1:], np.nan, dtype=np.float32)
    shares = np.full(scores.shape[:2], np.nan, dtype=np.float32)
    for block in range(axes.blocks):
        try:
            maps = block_maps(view, block, pairs)
        except ClasslensError:
            return
        for head, each in enumerate(maps):
            classes[0, block, head], classes[1, block, head] = each.input_class.cpu(), each.output_class.cpu()
            scores[block, head], shares[block, head] = each.score.cpu(), each.copy_share
    dims = ("block", "head", "pair")
    data = {
        "input_class": (dims, classes[0]),
        "output_class": (dims, classes[1]),
        "score": (dims, scores),
        "copy_share": (dims[:2], shares),
    }
    sizes = {"block": axes.blocks, "head": axes.heads, "pair": pairs}
    store.write_group(HEAD_MAPS, data, {name: (name, np.arange(size)) for name, size in sizes.items()})


def attribution_axes_of(view: ModelView, images: int, units: int) -> AttributionAxes:
    """Sizes of contributions; raises ClasslensError for a model whose logits are not a sum of them."""
    if not is_defined(METHODS["logit_attribution"], view):
        raise ClasslensError(
            f"model {view.name!r} pools its tokens by attention, so that its logits are no sum of what heads add: "
            "leave out --attribution and --units"
        )
    if units and any("mlp_coefficients" not in block.points for block in view.blocks):
        raise ClasslensError(
            f"model {view.name!r} is described without its memory coefficients: add the point mlp_coefficients to its "
            "blocks, or leave out --units (units=None)"
        )
    return AttributionAxes.of(view, images, units)


def _file(group: str) -> str:
    """The file of a tally, where zarr, which reads every entry of a group, does not look."""
    return f"{group}/measured/tally"
