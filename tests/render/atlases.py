"""Atlases with realistic numbers and every table, made without a store or a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from PIL import Image, ImageDraw

from classlens.analysis.atlas.atlas import Atlas
from classlens.analysis.atlas.tables import TABLES
from classlens.data.dataset import ClassName, Dataset, ImageFiles

PHOTO_CLASSES = (
    "tench",
    "English springer",
    "cassette player",
    "chain saw",
    "church",
    "French horn",
    "garbage truck",
    "gas pump",
    "golf ball",
    "parachute",
    "Abyssinian",
    "Bengal",
    "beagle",
)


@dataclass(frozen=True)
class AtlasSizes:
    """Sizes and texts that an atlas is made from.

    ``tokens``: whether tables of tokens and of units have rows, as without ``--units`` they do not.
    """

    classes: Sequence[str] = PHOTO_CLASSES
    images_per_class: int = 40
    blocks: int = 12
    heads: int = 6
    units: int = 40
    grid: tuple[int, int] = (14, 14)
    labels: bool = True
    tokens: bool = True
    seed: int = 0


def image_names(sizes: AtlasSizes) -> tuple[str, ...]:
    """Names of the images, class after class."""
    per_class = sizes.images_per_class
    return tuple(f"{i // per_class:03d}/photo {i:05d}.jpg" for i in range(len(sizes.classes) * per_class))


def make_atlas(sizes: AtlasSizes, names: Sequence[str] | None = None) -> Atlas:
    """An atlas; the input of the model is the middle of photos of 400 × 300 pixels."""
    rng = np.random.default_rng(sizes.seed)
    count = len(sizes.classes)
    per = sizes.images_per_class
    total = count * per
    names = names or image_names(sizes)
    label = np.repeat(np.arange(count), per) if sizes.labels else np.full(total, -1)
    truth = np.repeat(np.arange(count), per)
    wrong = rng.random(total) < rng.uniform(0.02, 0.35, count)[truth]
    prediction = np.where(wrong, (truth + 1 + (rng.random(total) < 0.3)) % count, truth)
    category = label if sizes.labels else prediction
    tables = {
        "classes": _classes(sizes, label, prediction),
        "confusions": _confusions(sizes, label, prediction),
        "trajectory": _trajectory(sizes, rng, category, label, prediction),
        "writers": _writers(sizes, rng, category, label, prediction),
        "heads": _heads(sizes, rng, total),
    }
    tables["tips"] = _tips(sizes, rng, tables["confusions"])
    tables |= _token_tables(sizes, rng, names, label, prediction)
    frames = np.tile(np.array([50.0, 0.0, 350.0, 300.0], dtype=np.float32), (total, 1))
    attrs = {
        "model": "builtin:photos",
        "data": "folder:photos",
        "split": None,
        "images": total,
        "num_classes": count,
    }
    tables = {name: _typed(name, tables[name]) for name in TABLES}
    return Atlas(tables, xr.Dataset(), attrs, "photos.zarr", list(sizes.classes), sizes.blocks, sizes.grid, frames)


def _typed(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """The table in the columns that an atlas has; raises where another is missing or left over."""
    return TABLES[name].frame({column: table[column].tolist() for column in table})


def photo_folder(folder: Path, sizes: AtlasSizes, *, noise: bool = False) -> Dataset:
    """Photos of 400 × 300 pixels in files, and the data set of them."""
    rng = np.random.default_rng(1)
    names = image_names(sizes)
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _photo(rng, number, noise=noise).save(path, quality=90)
    labels = np.repeat(np.arange(len(sizes.classes)), sizes.images_per_class)
    classes = tuple(ClassName(name) for name in sizes.classes)
    return Dataset.whole("folder:photos", None, names, labels, classes, ImageFiles(folder, names))


def _photo(rng: Any, number: int, *, noise: bool) -> Image.Image:
    rows, columns = np.mgrid[:300, :400]
    base = np.stack(
        [np.sin(rows / (20 + number % 37)), np.cos(columns / (15 + number % 23)), np.sin((rows + columns) / 40)], -1
    )
    pixels = 128 + 90 * base + (rng.normal(0, 40 if noise else 8, (300, 400, 1)))
    photo = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(photo)
    for _ in range(12):
        x, y = rng.integers(0, 400), rng.integers(0, 300)
        size = int(rng.integers(10, 90))
        draw.ellipse((x, y, x + size, y + size), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return photo


def _wilson(successes: Any, images: Any) -> tuple[Any, Any]:
    images, z = np.asarray(images, dtype=float), 1.959964
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.asarray(successes) / images
        middle = (share + z**2 / (2 * images)) / (1 + z**2 / images)
        half = z * np.sqrt(share * (1 - share) / images + z**2 / (4 * images**2)) / (1 + z**2 / images)
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


def _classes(sizes: AtlasSizes, label: Any, prediction: Any) -> pd.DataFrame:
    index = np.arange(len(sizes.classes))
    images = np.array([(label == c).sum() for c in index])
    correct = np.array([((label == c) & (prediction == c)).sum() for c in index])
    low, high = _wilson(correct, images)
    with np.errstate(invalid="ignore"):
        accuracy = correct / images
    return pd.DataFrame(
        {
            "category": index,
            "class_name": list(sizes.classes),
            "images": images,
            "correct": correct,
            "accuracy": accuracy,
            "accuracy_low": low,
            "accuracy_high": high,
            "predicted": [(prediction == c).sum() for c in index],
        }
    )


def _confusions(sizes: AtlasSizes, label: Any, prediction: Any) -> pd.DataFrame:
    rows = []
    for c in np.unique(label[label >= 0]):
        images = (label == c).sum()
        for other, count in zip(
            *np.unique(prediction[(label == c) & (prediction != c)], return_counts=True), strict=True
        ):
            rows.append((c, sizes.classes[c], other, sizes.classes[other], count, count / images, images))
    rows.sort(key=lambda row: -row[4])
    table = pd.DataFrame(
        rows, columns=["label", "label_name", "prediction", "prediction_name", "images", "share", "of"]
    )
    table["share_low"], table["share_high"] = _wilson(table["images"], table["of"])
    return table.drop(columns="of")


def _groups(category: Any, label: Any, prediction: Any, c: int) -> list[tuple[str, int]]:
    chosen = category == c
    groups = [("all", chosen)]
    if (label >= 0).any():
        groups += [("right", chosen & (label == prediction)), ("wrong", chosen & (label != prediction))]
    return [(name, int(mask.sum())) for name, mask in groups]


def _trajectory(sizes: AtlasSizes, rng: Any, category: Any, label: Any, prediction: Any) -> pd.DataFrame:
    rows = []
    for c in range(len(sizes.classes)):
        for group, count in _groups(category, label, prediction, c):
            if not count:
                continue
            end = {"all": 0.88, "right": 1.0, "wrong": 0.0}[group]
            peak = {"all": -0.5, "right": -0.15, "wrong": -2.2}[group]
            for depth in range(sizes.blocks + 1):
                way = (depth / sizes.blocks) ** 2.2
                top = end * way + 0.05 * (1 - way)
                value = peak * way - np.log(len(sizes.classes) + 1) * (1 - way) + rng.normal(0, 0.04)
                half = 0.9 / np.sqrt(count)
                rows.append(
                    (
                        c,
                        depth,
                        group,
                        count,
                        top,
                        max(0, top - half / 2),
                        min(1, top + half / 2),
                        value,
                        value - half / 2,
                        value + half / 2,
                    )
                )
    columns = ["category", "depth", "group", "images", "on_top", "on_top_low", "on_top_high"]
    return pd.DataFrame(rows, columns=[*columns, "log_probability", "log_probability_low", "log_probability_high"])


def _writers(sizes: AtlasSizes, rng: Any, category: Any, label: Any, prediction: Any) -> pd.DataFrame:
    frames = []
    parts = [(b, h) for b in range(sizes.blocks) for h in (*range(sizes.heads), -1)]
    blocks, heads = np.array(parts).T
    growth = (blocks + 1) / sizes.blocks
    for c in range(len(sizes.classes)):
        base = rng.normal(0.1, 0.35, len(parts)) * growth**3 + (heads < 0) * growth**2 * rng.normal(
            0.5, 0.3, len(parts)
        )
        for group, count in _groups(category, label, prediction, c):
            shift = {"all": 0.0, "right": 0.03, "wrong": -0.2}[group] * growth
            value = base + shift if count else np.full(len(parts), np.nan)
            half = 0.25 * growth / np.sqrt(max(count, 1)) * 2
            frames.append(
                pd.DataFrame(
                    {
                        "category": c,
                        "sublayer": np.where(heads < 0, "mlp", "attn"),
                        "block": blocks,
                        "head": heads,
                        "group": group,
                        "images": count,
                        "contribution": value,
                        "low": value - half,
                        "high": value + half,
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


def _tips(sizes: AtlasSizes, rng: Any, confusions: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for c, table in confusions.groupby("label"):
        first = table.iloc[0]
        if first["images"] < 2:
            continue
        for b in range(sizes.blocks):
            for h in (*range(sizes.heads), -1):
                value = rng.normal(0.05, 0.3) * ((b + 1) / sizes.blocks) ** 2
                half = 0.5 / np.sqrt(first["images"]) * ((b + 1) / sizes.blocks)
                sublayer = "mlp" if h < 0 else "attn"
                rows.append(
                    (c, first["prediction"], sublayer, b, h, first["images"], value, value - half, value + half)
                )
    columns = ["label", "prediction", "sublayer", "block", "head", "images", "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _heads(sizes: AtlasSizes, rng: Any, total: int) -> pd.DataFrame:
    parts = [(b, h) for b in range(sizes.blocks) for h in range(sizes.heads)]
    blocks, heads = np.array(parts).T
    distance = np.clip(rng.normal(2 + 0.35 * blocks, 1.2), 0.4, None)
    entropy = np.clip(rng.normal(3.2, 0.8, len(parts)), 0.2, np.log(sizes.grid[0] * sizes.grid[1] + 1))
    return pd.DataFrame(
        {
            "block": blocks,
            "head": heads,
            "contribution_images": total,
            "distance": distance,
            "distance_low": distance - 0.06,
            "distance_high": distance + 0.06,
            "entropy": entropy,
            "entropy_low": entropy - 0.03,
            "entropy_high": entropy + 0.03,
            "copy_share": rng.random(len(parts)) if sizes.tokens else np.nan,
        }
    )


def _token_tables(
    sizes: AtlasSizes, rng: Any, names: Sequence[str], label: Any, prediction: Any
) -> dict[str, pd.DataFrame]:
    count, total = len(sizes.classes), len(names)
    rows, columns = sizes.grid

    def tokens(keys: dict[str, Any], size: int) -> dict[str, Any]:
        image = rng.integers(0, total, size)
        token = rng.integers(0, rows * columns, size)
        return keys | {
            "image": [names[i] for i in image],
            "image_index": image,
            "token": token + 1,
            "row": token // columns,
            "column": token % columns,
        }

    def decisions(table: dict[str, Any]) -> dict[str, Any]:
        return table | {"label": label[table["image_index"]], "prediction": prediction[table["image_index"]]}

    def strongest(size: int, keys: int) -> Any:
        return -np.sort(-rng.gamma(2, 0.4, (keys, size)), axis=1).ravel()

    def repeated(first: str, number: int, last: str, size: int) -> dict[str, Any]:
        blocks, numbers, places = np.indices((sizes.blocks, number, size)).reshape(3, -1)
        return {"block": blocks, first: numbers, last: places}

    heads = tokens(repeated("head", sizes.heads, "top", 9), sizes.blocks * sizes.heads * 9)
    heads["contribution"] = strongest(9, sizes.blocks * sizes.heads)
    maps = repeated("head", sizes.heads, "pair", 20)
    entries = len(maps["block"])
    maps["input_class"] = rng.integers(0, count, entries)
    maps["output_class"] = np.where(rng.random(entries) < 0.5, maps["input_class"], rng.integers(0, count, entries))
    for side in ("input", "output"):
        maps[f"{side}_name"] = [sizes.classes[c] for c in maps[f"{side}_class"]]
    maps["score"] = strongest(20, sizes.blocks * sizes.heads)
    units = {
        "block": np.repeat(np.arange(sizes.blocks), sizes.units),
        "unit": np.tile(np.arange(sizes.units), sizes.blocks),
    }
    values = repeated("unit", sizes.units, "class_rank", min(5, count))
    orders = np.argsort(rng.random((sizes.blocks * sizes.units, count)), axis=1)[:, : min(5, count)]
    values["category"] = orders.ravel()
    values["class_name"] = [sizes.classes[c] for c in values["category"]]
    values["score"] = strongest(min(5, count), sizes.blocks * sizes.units)
    values["cosine"] = np.clip(values["score"] / 4, 0, 0.9)
    best = pd.DataFrame(values).query("class_rank == 0")
    tops = tokens(repeated("unit", sizes.units, "top", 9), sizes.blocks * sizes.units * 9)
    tops["coefficient"] = strongest(9, sizes.blocks * sizes.units)
    units |= {
        "active_share": rng.beta(1, 8, sizes.blocks * sizes.units),
        "coefficient": tops["coefficient"][::9],
        "value_class": best["category"].to_numpy(),
        "value_name": best["class_name"].to_numpy(),
        "value_cosine": best["cosine"].to_numpy(),
    }
    writers = []
    of_class = [(label == c).sum() if sizes.labels else (prediction == c).sum() for c in range(count)]
    for c in range(count):
        chosen = rng.choice(sizes.blocks * sizes.units, min(30, sizes.blocks * sizes.units), replace=False)
        amount = -np.sort(-rng.gamma(2, 0.1, len(chosen)))
        for unit, value in zip(chosen, amount, strict=True):
            listed = int(rng.integers(1, max(of_class[c], 2)))
            half = 0.4 * value
            writers.append(
                (
                    c,
                    unit // sizes.units,
                    unit % sizes.units,
                    of_class[c],
                    listed,
                    value,
                    value - half,
                    value + half,
                    0.01 * value,
                )
            )
    written = ["category", "block", "unit", "images", "listed", "contribution", "low", "high", "bound"]
    per_class = min(9, sizes.images_per_class)
    places = np.indices((count, per_class)).reshape(2, -1)
    said = tokens({"category": places[0], "top": places[1]}, count * per_class)
    said["logit"] = 6 + strongest(per_class, count)
    tables = {
        "head_map": pd.DataFrame(maps),
        "head_tokens": pd.DataFrame(decisions(heads)),
        "units": pd.DataFrame(units),
        "unit_values": pd.DataFrame(values),
        "unit_tokens": pd.DataFrame(decisions(tops)),
        "unit_writers": pd.DataFrame(writers, columns=written),
    }
    if not sizes.tokens:
        tables = {name: table.head(0) for name, table in tables.items()}
    return tables | {"class_tokens": pd.DataFrame(said)}
