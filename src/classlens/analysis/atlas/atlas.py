"""An atlas of a model: what each head and hidden unit writes to each class, over a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from numpy import ndarray

from classlens.analysis.atlas.classes import class_table, confusion_table
from classlens.analysis.atlas.heads import Heads, head_map_table, head_token_table
from classlens.analysis.atlas.stored import AtlasStore
from classlens.analysis.atlas.tables import TABLES
from classlens.analysis.atlas.tokens import ClassTokens
from classlens.analysis.atlas.trajectory import Trajectories
from classlens.analysis.atlas.unit_writers import UnitWriters
from classlens.analysis.atlas.units import unit_table, unit_token_table, unit_value_table
from classlens.analysis.atlas.writers import Writers
from classlens.core.arguments import AnyPath, Share
from classlens.core.path_arguments import checked_with_home
from classlens.errors import ClasslensError, cause, unknown
from classlens.extras import require_extras_of
from classlens.renderers import Shown
from classlens.store.atomic import atomic_write
from classlens.tasks.tokens.attribution.schema import ATTRIBUTION, HEAD_TOKENS, SIDES, UNIT_TOKENS, UNITS


@dataclass(frozen=True, eq=False, repr=False)
class Atlas(Shown):
    """The tables of an atlas, and the facts that pages about it need.

    ``atlas["writers"]`` is the table of that name, and so is ``atlas.writers``. A notebook shows the strongest parts.

    Attributes:
        tables: a tidy table for each name in the documentation; a table of something that was not measured has its
            columns and no row.
        dataset: the same means as labeled arrays: ``head_contribution`` by category, block and head,
            ``mlp_contribution`` by category and block, ``embed``, ``bias`` and ``logit`` by category, and
            ``attention_distance`` and ``attention_entropy`` by block and head. Contributions are those beyond the mean
            of all classes, over all images of a class; heads, MLPs, ``embed`` and ``bias`` add up to ``logit``.
        attrs: attributes of the store (model, data, split, versions …), and of the atlas: ``atlas_images``,
            ``pending_images``, ``skipped_images``, ``confidence``, and ``classes_by``: ``"label"``, or ``"prediction"``
            where no image has a label. ``tokens_stale``: whether the strongest tokens of heads and units are those of
            other images, as those of a run that was killed.
        store: path or URL of the store.
        class_names: names of all classes.
        blocks: number of blocks.
        grid: rows and columns of the image tokens.
        frames: ``[image, side]``: left, top, right and bottom border of the model's input, in pixels of each photo of
            the store; NaN where it is not known.
    """

    _renderer: ClassVar[str] = "atlas"

    tables: Mapping[str, pd.DataFrame]
    dataset: xr.Dataset
    attrs: Mapping[str, Any]
    store: str
    class_names: list[str]
    blocks: int
    grid: tuple[int, int]
    frames: Float[ndarray, "image side"]

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self.tables:
            raise unknown("table", name, self.tables)
        return self.tables[name]

    def __getattr__(self, name: str) -> pd.DataFrame:
        tables: Mapping[str, pd.DataFrame] = self.__dict__.get("tables", {})
        if name not in tables:
            raise AttributeError(f"an atlas has no attribute or table {name!r}")
        return tables[name]

    def __dir__(self) -> list[str]:
        return sorted([*super().__dir__(), *self.tables])

    def __repr__(self) -> str:
        counted = [(len(self.class_names), "classes"), (len(self["heads"]), "heads"), (len(self["units"]), "units")]
        text = ", ".join(f"{number:,} {name}" for number, name in counted if number)
        return f"Atlas({text} of {self.attrs['model']!r})"

    @checked_with_home
    def write(self, folder: AnyPath) -> list[Path]:
        """Write each table as ``NAME.parquet`` (Apache Parquet); no file is left half-written.

        Args:
            folder: a new folder or one of an earlier atlas, whose tables are replaced.

        Returns:
            Paths of the files.

        Raises:
            ClasslensError: pyarrow is not installed, or a folder that holds other files or cannot be written.

        Examples:
            >>> import classlens
            >>> classlens.atlas("photos.zarr").write("tables")  # doctest: +SKIP
        """
        require_extras_of("atlas")
        folder = Path(folder)
        paths = {name: folder / f"{name}.parquet" for name in self.tables}
        if folder.exists() and (not folder.is_dir() or {*folder.iterdir()} - {*paths.values()}):
            raise ClasslensError(f"folder {str(folder)!r} holds other files than an atlas: give an empty or new folder")
        try:
            with ExitStack() as files:
                for name, path in paths.items():
                    self.tables[name].to_parquet(files.enter_context(atomic_write(path)), index=False)
        except OSError as error:
            raise ClasslensError(
                f"tables cannot be written to {str(folder)!r} ({cause(error)}): give another folder"
            ) from None
        return list(paths.values())


@checked_with_home
def atlas(store: AnyPath, *, confidence: Share = 0.95, report: Callable[[int, int], None] = lambda *_: None) -> Atlas:
    """Tables of what each head and hidden unit writes to each class, from a store of ``classlens.measure``.

    The contribution to a class is its exact logit attribution minus the mean of that of all classes, since what all
    classes share changes no probability. Images are read batch by batch. Intervals treat images as independent: of
    shares by Wilson's score, of means by Student's t (NaN for fewer than two images).

    Args:
        store: path or URL of a store that was measured with ``attribution=True``; with ``units=N`` its atlas has hidden
            units. Images without a measurement are left out and counted in ``attrs``.
        confidence: confidence level of intervals, between 0 and 1; default 0.95.
        report: called with the images done and the images of all.

    Returns:
        An ``Atlas``. In a store without labels, tables that go by class take the prediction for the class of an image,
        which ``attrs["classes_by"]`` says, and have no images that are right or wrong. In a store with some labels,
        such tables leave out images without one.

    Raises:
        ClasslensError: a path without a store, one of another command, or one without attribution.

    Examples:
        >>> import classlens
        >>> atlas = classlens.atlas("photos.zarr")  # doctest: +SKIP
        >>> atlas["writers"].query("category == 3 and group == 'all'").nlargest(5, "contribution")  # doctest: +SKIP
        >>> atlas.write("tables")  # doctest: +SKIP
    """
    require_extras_of("atlas")
    return atlas_of(AtlasStore(store), confidence, report)


def atlas_of(store: AtlasStore, confidence: float, report: Callable[[int, int], None]) -> Atlas:
    """``atlas`` for a store at hand."""
    trajectories, writers, heads = Trajectories(store), Writers(store), Heads(store)
    unit_writers, class_tokens = UnitWriters(store), ClassTokens(store)
    done = 0
    report(done, len(store.images))
    for batch in store.batches():
        for collector in (trajectories, writers, heads, unit_writers, class_tokens):
            collector.add(batch)
        done += len(batch.images)
        report(done, len(store.images))
    tables = {
        "classes": class_table(store, confidence),
        "confusions": confusion_table(store, confidence),
        "trajectory": trajectories.table(confidence),
        "writers": writers.table(confidence),
        "tips": writers.tips(confidence),
        "heads": heads.table(confidence),
        "head_map": head_map_table(store),
        "head_tokens": head_token_table(store),
        "units": unit_table(store),
        "unit_values": unit_value_table(store),
        "unit_tokens": unit_token_table(store),
        "unit_writers": unit_writers.table(confidence),
        "class_tokens": class_tokens.table(),
    }
    assert list(tables) == list(TABLES), "every table is registered"
    attrs = _attributes(store, confidence)
    frames = np.asarray(store.group(ATTRIBUTION)["frame"].values)
    assert frames.shape == (store.total_images, len(SIDES)), "checked with the store"
    return Atlas(
        tables,
        _dataset(store, writers, heads, attrs),
        attrs,
        store.url,
        store.class_names,
        store.blocks,
        store.grid,
        frames,
    )


def _attributes(store: AtlasStore, confidence: float) -> dict[str, Any]:
    """Attributes of the store and of the atlas."""
    atlas_images = len(store.images)
    more: dict[str, Any] = {
        "atlas_images": atlas_images,
        "skipped_images": store.skipped,
        "pending_images": store.total_images - atlas_images - store.skipped,
        "classes_by": store.by,
        "confidence": confidence,
    }
    if store.has(UNITS):
        more["units_per_block"] = store.units_per_block
    if store.has(UNIT_TOKENS) and "tokens_seen" in store.group(UNIT_TOKENS).attrs:
        more["tokens_seen"] = int(store.group(UNIT_TOKENS).attrs["tokens_seen"])
    if store.has(HEAD_TOKENS) and "tokens_seen" in store.group(HEAD_TOKENS).attrs:
        cells = store.grid[0] * store.grid[1]
        more["tokens_stale"] = int(store.group(HEAD_TOKENS).attrs["tokens_seen"]) != store.attributed * cells
    return {**store.attrs, **more}


def _dataset(store: AtlasStore, writers: Writers, heads: Heads, attrs: Mapping[str, Any]) -> xr.Dataset:
    """Means of the tables as labeled arrays."""
    values = {**writers.cubes(), **{name: (("block", "head"), mean) for name, mean in heads.means().items()}}
    coords = {
        "category": np.arange(store.num_classes),
        "class_name": ("category", np.array(store.class_names, dtype=object)),
        "block": np.arange(store.blocks),
        "head": np.arange(store.group(ATTRIBUTION).sizes["head"]),
    }
    named = ("model", "data", "split", "classes_by", "atlas_images")
    return xr.Dataset(values, coords, {name: attrs[name] for name in named if attrs.get(name) is not None})
