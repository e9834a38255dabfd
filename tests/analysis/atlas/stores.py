"""Small stores of `classlens measure --attribution`, with drawn values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from classlens.core.arrays import Array
from classlens.store.metadata import SHARD
from classlens.store.schema import Schema, Variable
from classlens.store.store import Store
from tests.analysis.stores import StoreSpec, Values, write_store

OF = ("label", "prediction", "mean")
SIDES = ("left", "top", "right", "bottom")
TOP, CLASS_RANKS, PAIRS = 9, 5, 20
F32, I32 = np.dtype("float32"), np.dtype("int32")
Arrays = Mapping[str, tuple[tuple[str, ...], Array]]


@dataclass(frozen=True, kw_only=True)
class AtlasSpec:
    """A store with attribution; ``clean`` describes what `measure` writes without it.

    ``heads`` are those of each block, ``listed`` the units of the list of an image. ``absent`` names groups that are
    left out, ``measured`` the markers of ``attribution`` and ``units`` where they are not all 1.
    """

    clean: StoreSpec
    heads: Sequence[int] = (3, 2, 3)
    units: int = 7
    listed: int = 3
    absent: Sequence[str] = ()
    measured: Mapping[str, Sequence[int]] = field(default_factory=dict)
    seed: int = 0


def write_atlas_store(path: Path, spec: AtlasSpec) -> dict[str, Values]:
    """Write it; returns all arrays by group, for slow twins to read."""
    clean = write_store(path, spec.clean)
    groups = {
        "attribution": attribution(spec, clean["clean"]),
        "units": units(spec, clean["clean"]),
        "head_tokens": head_tokens(spec),
        "unit_tokens": unit_tokens(spec),
        "head_maps": head_maps(spec),
    }
    names = [f"{number:04}.png" for number in range(spec.clean.images)]
    for name, arrays in groups.items():
        if name not in spec.absent:
            measured = spec.measured.get(name, [1] * spec.clean.images)
            add_group(path, name, arrays, names=names, units=spec.units, measured=measured)
    return {**clean, **{name: {key: value for key, (_, value) in arrays.items()} for name, arrays in groups.items()}}


def attribution(spec: AtlasSpec, clean: Values) -> Arrays:
    """Contributions that add up; blocks with fewer heads than others have NaN for the rest."""
    rng = np.random.default_rng([spec.seed, 1])
    images, blocks, heads = spec.clean.images, spec.clean.blocks, max(spec.heads)
    head = rng.standard_normal((images, 3, blocks, heads)) + 0.3 * np.arange(heads)
    distance, entropy = rng.uniform(0, 4, (2, images, blocks, heads))
    missing = np.arange(heads) >= np.array(spec.heads)[:, None]
    for values in (head, distance, entropy):
        values[..., missing] = np.nan
    mlp = rng.standard_normal((images, 3, blocks))
    embed, bias = rng.standard_normal((2, images, 3))
    for values in (head, mlp, embed, bias):
        values[clean["label"] < 0, 0] = np.nan
    frame = np.stack([np.zeros(images), np.zeros(images), 100 + np.arange(images), np.full(images, 80)], axis=1)
    frame[2] = np.nan
    logit = embed + np.nansum(head, axis=(2, 3)) + mlp.sum(axis=2) + bias
    return {
        "head_contribution": (("image", "of", "block", "head"), head.astype(F32)),
        "mlp_contribution": (("image", "of", "block"), mlp.astype(F32)),
        "embed_contribution": (("image", "of"), embed.astype(F32)),
        "bias_contribution": (("image", "of"), bias.astype(F32)),
        "attributed_logit": (("image", "of"), logit.astype(F32)),
        "attention_distance": (("image", "block", "head"), distance.astype(F32)),
        "attention_entropy": (("image", "block", "head"), entropy.astype(F32)),
        "frame": (("image", "side"), frame.astype(F32)),
    }


def units(spec: AtlasSpec, clean: Values) -> Arrays:
    """Lists of the strongest units of each image, of all blocks together."""
    rng = np.random.default_rng([spec.seed, 2])
    every = rng.standard_normal((spec.clean.images, 2, spec.clean.blocks * spec.units)) + 0.4
    strongest = np.argsort(-np.abs(every), axis=-1, kind="stable")[..., : spec.listed]
    value = np.take_along_axis(every, strongest, axis=-1)
    room = ((0, 0), (0, 0), (0, spec.listed - strongest.shape[-1]))
    strongest, value = np.pad(strongest, room, constant_values=-1), np.pad(value, room, constant_values=np.nan)
    unlabeled = clean["label"] < 0
    strongest[unlabeled, 0], value[unlabeled, 0] = -1, np.nan
    dims = ("image", "unit_of", "rank")
    return {"top_unit": (dims, strongest.astype(I32)), "top_unit_contribution": (dims, value.astype(F32))}


def head_tokens(spec: AtlasSpec) -> Arrays:
    rng = np.random.default_rng([spec.seed, 3])
    shape = (spec.clean.blocks, max(spec.heads), TOP)
    image = rng.integers(0, spec.clean.images, shape)
    token = rng.integers(len(spec.clean.prefix), spec.clean.axes.tokens, shape)
    value = -np.sort(-rng.random(shape), axis=-1)
    empty = np.broadcast_to((np.arange(shape[1]) >= np.array(spec.heads)[:, None])[..., None], shape).copy()
    empty[0, 0, 6:] = True  # fewer tokens than the list has room for
    image[empty], token[empty], value[empty] = -1, -1, np.nan
    dims = ("block", "head", "top")
    return {
        "token_image": (dims, image.astype(I32)),
        "token": (dims, token.astype(I32)),
        "contribution": (dims, value.astype(F32)),
    }


def unit_tokens(spec: AtlasSpec) -> Arrays:
    rng = np.random.default_rng([spec.seed, 4])
    shape = (spec.clean.blocks, spec.units, TOP)
    classes = (*shape[:2], min(CLASS_RANKS, spec.clean.classes))
    dims = ("block", "unit", "top")
    value_class = np.argsort(rng.random((*shape[:2], spec.clean.classes)), axis=-1)[..., : classes[2]]
    value_score, cosine = -np.sort(-rng.random(classes), axis=-1), rng.uniform(-1, 1, classes)
    image = rng.integers(0, spec.clean.images, shape)
    token = rng.integers(len(spec.clean.prefix), spec.clean.axes.tokens, shape)
    coefficient, active = -np.sort(-rng.random(shape), axis=-1), rng.random(shape[:2])
    last = 1, spec.units - 1  # block 1 has a unit less
    image[last], token[last], value_class[last], active[last] = -1, -1, -1, 0
    coefficient[last], value_score[last], cosine[last] = np.nan, np.nan, np.nan
    of_class = ("block", "unit", "class_rank")
    return {
        "token_image": (dims, image.astype(I32)),
        "token": (dims, token.astype(I32)),
        "coefficient": (dims, coefficient.astype(F32)),
        "active_share": (dims[:2], active.astype(F32)),
        "value_class": (of_class, value_class.astype(I32)),
        "value_score": (of_class, value_score.astype(F32)),
        "value_cosine": (of_class, cosine.astype(F32)),
    }


def head_maps(spec: AtlasSpec) -> Arrays:
    rng = np.random.default_rng([spec.seed, 5])
    shape = (spec.clean.blocks, max(spec.heads), PAIRS)
    pairs = rng.integers(0, spec.clean.classes, (2, *shape))
    score = -np.sort(-rng.standard_normal(shape), axis=-1)
    missing = np.arange(shape[1]) >= np.array(spec.heads)[:, None]
    copy = rng.random(shape[:2])
    pairs[:, missing], score[missing], copy[missing] = -1, np.nan, np.nan
    dims = ("block", "head", "pair")
    return {
        "input_class": (dims, pairs[0].astype(I32)),
        "output_class": (dims, pairs[1].astype(I32)),
        "score": (dims, score.astype(F32)),
        "copy_share": (dims[:2], copy.astype(F32)),
    }


def add_group(
    path: Path, name: str, arrays: Arrays, *, names: Sequence[str], units: int, measured: Sequence[int]
) -> None:
    """Write a group as `classlens measure` does: with markers where it goes by images, else as whole arrays."""
    sizes = {dim: size for dims, values in arrays.values() for dim, size in zip(dims, values.shape, strict=True)}
    texts = {"of": OF, "unit_of": OF[:2], "side": SIDES, "image": names}
    coords = {
        dim: (dim, np.array(texts[dim], dtype=object) if dim in texts else np.arange(size))
        for dim, size in sizes.items()
    }
    more = {"units": {"units_per_block": units}, "unit_tokens": {"tokens_seen": 40}}.get(name, {})
    store = Store(str(path))
    if "image" in sizes:
        variables = {
            key: Variable(dims, values.dtype, np.nan if values.dtype.kind == "f" else -1, key)
            for key, (dims, values) in arrays.items()
        }
        store.add_group(name, Schema(sizes, variables, frozenset(sizes) - {"image"}, coords, more))
        for start in range(0, sizes["image"], SHARD):
            part = slice(start, min(start + SHARD, sizes["image"]))
            skipped = {index: "cannot be read" for index in range(part.start, part.stop) if measured[index] == 2}
            store.write(name, start, {key: values[part] for key, (_, values) in arrays.items()}, skipped)
        store._array(name, "measured")[:] = np.asarray(measured, dtype=np.uint8)
        return
    group = zarr.open_group(str(path), mode="r+").create_group(name)
    for key, (dims, values) in [*arrays.items(), *((dim, ((dim,), values)) for dim, (_, values) in coords.items())]:
        fill: Any = np.nan if values.dtype.kind == "f" else -1
        options: dict[str, Any] = {"chunks": values.shape, "fill_value": fill, "dimension_names": dims}
        codec = ZstdCodec(level=0, checksum=True)
        group.create_array(key, shape=values.shape, dtype=values.dtype, compressors=codec, **options)[...] = values
    group.attrs.update({**more, "coordinates": ""})
