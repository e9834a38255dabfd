"""Groups of contributions in a store, and the strongest tokens of heads and units while a run goes on."""

from __future__ import annotations

import numpy as np

from classlens.core.arrays import Array
from classlens.data.dataset import Dataset
from classlens.errors import ClasslensError
from classlens.explain.registry import METHODS, is_defined
from classlens.lens.directions import Directions, require_fits
from classlens.lens.lens import Lens
from classlens.models.view import ModelView
from classlens.store.metadata import SHARD
from classlens.store.store import Store
from classlens.tasks.tokens.attribution.parameters import value_classes
from classlens.tasks.tokens.attribution.schema import (
    ATTRIBUTION,
    HEAD_TOKENS,
    UNIT_TOKENS,
    UNITS,
    AttributionAxes,
)
from classlens.tasks.tokens.attribution.tally import Tally, TallyPart

_TOKENS_OF = {ATTRIBUTION: HEAD_TOKENS, UNITS: UNIT_TOKENS}


class StoredAttribution:
    """Contributions of a store that is being written; they may join it after its conditions.

    ``note`` says whether images have to be measured again, and why.
    """

    def __init__(
        self, store: Store, axes: AttributionAxes, lens: Lens, dataset: Dataset, directions: Directions | None = None
    ) -> None:
        self._store, self._axes, self._lens, self._dataset, self._directions = store, axes, lens, dataset, directions
        self._tallies: dict[str, Tally] = {}
        self._unsaved: set[str] = set()
        self.note = ""
        for group in axes.groups:
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
            tokens_of, digest = _TOKENS_OF[group], tally.digest
            if self._store.has_group(tokens_of) and self._store.group_attributes(tokens_of).get("tally") == digest:
                continue
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
                values = value_classes(self._lens.view, self._axes, self._directions)
                data |= {name: ((*dims[:2], "class_rank"), array) for name, array in values.items()}
                sizes["class_rank"] = values["value_class"].shape[2]
            attrs = {"tokens_seen": tally.tokens, "tally": digest}
            self._store.write_group(tokens_of, data, self._axes.coords(**sizes), attrs)

    def _restored(self, group: str) -> Tally:
        """The tally of a run that goes on; images that it lacks become pending, and all do where others changed."""
        store, images = self._store, len(self._dataset)
        data = store.read_file(_file(group))
        tally = None if data is None else Tally.from_bytes(data, images, self._axes.rows(group))
        measured = store.status(group) != 0
        if tally is None or self._has_other_content(group, tally, measured):
            if measured.any():
                why = "the record of its strongest tokens is gone" if tally is None else "images have changed"
                self.note = f"group {group!r} is measured anew from its first image, as {why}"
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


def require_same_units(store: Store, axes: AttributionAxes) -> None:
    """Raises ClasslensError for a store with other directions, or another number of units for each image."""
    if not axes.listed or UNITS not in store.groups():
        return
    before = store.group_attributes(UNITS).get("directions", "")
    if before != axes.directions:
        held = "hidden units" if not before else "other directions" if axes.directions else "directions"
        raise ClasslensError(
            f"store {store.url!r} holds {held} as its units: give the same --directions, or another --out"
        )
    listed = store.size(UNITS, "top_unit", 2)
    if listed != axes.listed:
        raise ClasslensError(
            f"store {store.url!r} has {listed} units of each image, not {axes.listed}: give --units {listed} "
            f"(units={listed}), or another --out"
        )


def attribution_axes_of(
    view: ModelView, images: int, units: int, directions: Directions | None = None
) -> AttributionAxes:
    """Sizes of contributions; raises ClasslensError for a model whose logits are not a sum of them.

    And for directions that the model does not have.
    """
    if not is_defined(METHODS["logit_attribution"], view):
        raise ClasslensError(
            f"model {view.name!r} pools its tokens by attention, so that its logits are no sum of what heads add: "
            "leave out --attribution, --units and --directions"
        )
    if len({block.heads for block in view.blocks}) > 1:
        raise ClasslensError(
            f"model {view.name!r} has blocks of different numbers of heads, which --attribution does not measure: "
            "leave it out, with --units and --directions"
        )
    if directions is not None:
        require_fits(directions, view)
    elif units and any("mlp_coefficients" not in block.points for block in view.blocks):
        raise ClasslensError(
            f"model {view.name!r} is described without its memory coefficients: add the point mlp_coefficients to its "
            "blocks, or leave out --units (units=None)"
        )
    return AttributionAxes.of(view, images, units, directions)


def _file(group: str) -> str:
    """The file of a tally, where zarr, which reads every entry of a group, does not look."""
    return f"{group}/measured/tally"
