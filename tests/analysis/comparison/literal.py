"""Slow twins of the tables of a comparison: loops over images, read from the arrays of both stores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from scipy import stats

Rows = list[dict[str, Any]]


def read_images(path: Path) -> Rows:
    """A record of every measured image, with names of classes in the place of indices."""
    root: Any = zarr.open_group(str(path), mode="r")
    arrays = {key: array[...] for key, array in root["clean"].arrays()}
    parts = {key: array[...] for key, array in root["attribution"].arrays()} if "attribution" in root else None
    names = [str(name) for name in arrays["class_name"]] + [None]
    kinds = [str(kind) for kind in arrays["token_kind"]]
    site = [str(name) for name in arrays["site"]].index("resid_post")
    records = []
    for i, status in enumerate(arrays["measured"]):
        if status != 1:
            continue
        tops = [names[depth[0]] for depth in arrays["trajectory_top"][i]] if "trajectory_top" in arrays else []
        stays = len(tops) - 1
        while stays > 0 and tops[stays - 1] == tops[-1]:
            stays -= 1
        ranks = [int(rank) for rank, kind in zip(arrays["rank"][i, site, -1], kinds, strict=True) if kind == "image"]
        record = {
            "index": i,
            "name": str(arrays["image"][i]),
            "content": int(arrays["content"][i]),
            "label": names[arrays["label"][i]],
            "prediction": names[arrays["prediction"][i]],
            "target": names[arrays["target"][i]],
            "confidence": float(arrays["confidence"][i]),
            "tops": tops,
            "tokens_on_top": sum(rank == 0 for rank in ranks) / len(ranks),
        }
        if tops:
            last = arrays["trajectory_top_logit"][i, -1].astype(float)
            record |= {
                "commitment": stays / (len(tops) - 1),
                "entropy": float(arrays["trajectory_entropy"][i, -1]),
                "margin": last[0] - last[1],
            }
        if parts is not None and parts["measured"][i] == 1:
            head, mlp = parts["head_contribution"][i].astype(float), parts["mlp_contribution"][i].astype(float)
            record["parts"] = {
                **{
                    (block, number): head[0, block, number] - head[2, block, number]
                    for block in range(head.shape[1])
                    for number in range(head.shape[2])
                },
                **{(block, -1): mlp[0, block] - mlp[2, block] for block in range(mlp.shape[1])},
            }
        records.append(record)
    return records


def match(first: Rows, second: Rows, key: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of records of the same photo."""
    return [(one, other) for one in first for other in second if one[key] == other[key]]


def kind(one: dict[str, Any], other: dict[str, Any]) -> str:
    label = one["label"] if one["label"] == other["label"] else None
    if one["prediction"] == other["prediction"]:
        return "same"
    if label is not None and one["prediction"] == label:
        return "broken"
    if label is not None and other["prediction"] == label:
        return "fixed"
    return "changed"


def labeled(pairs: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    return [(one, other) for one, other in pairs if one["label"] is not None and one["label"] == other["label"]]


def flips(pairs: Sequence[tuple[Any, Any]]) -> Counter[tuple[str, str, str, str]]:
    counts: Counter[tuple[str, str, str, str]] = Counter()
    for one, other in pairs:
        if kind(one, other) != "same":
            label = one["label"] if one["label"] == other["label"] and one["label"] is not None else ""
            counts[label, one["prediction"], other["prediction"], kind(one, other)] += 1
    return counts


def mcnemar(fixed: int, broken: int) -> float:
    """Twice the lower tail of a fair coin, at most 1."""
    total = fixed + broken
    tail = sum(math.comb(total, k) for k in range(min(fixed, broken) + 1)) / 2**total
    return float(min(1.0, 2 * tail))


def wilson(hits: int, trials: int) -> tuple[float, float]:
    found = stats.binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def agresti_min(fixed: int, broken: int, trials: int) -> tuple[float, float]:
    """Equation 3 of Agresti and Min (2005), with all four cells of the table."""
    z = stats.norm.ppf(0.975)
    cells = {"fixed": fixed + 0.5, "broken": broken + 0.5, "others": trials - fixed - broken + 1.0}
    n = sum(cells.values())
    up, down = cells["fixed"] / n, cells["broken"] / n
    error = math.sqrt((up + down - (up - down) ** 2) / n)
    return max(-1.0, up - down - z * error), min(1.0, up - down + z * error)


def benjamini_hochberg(values: Sequence[float]) -> list[float]:
    """For each p value, the smallest level at which the step-up procedure rejects it."""
    count = len(values)
    return [
        min(1.0, min(count * other / sum(p <= other for p in values) for other in values if other >= value))
        for value in values
    ]


def calibration(records: Sequence[tuple[float, bool]]) -> float:
    """Expected calibration error over 15 bins."""
    total = 0.0
    for number in range(15):
        members = [(p, right) for p, right in records if math.floor(p * 15) == number or (p == 1 and number == 14)]
        if members:
            accuracy = sum(right for _, right in members) / len(members)
            total += len(members) / len(records) * abs(accuracy - sum(p for p, _ in members) / len(members))
    return total


def bootstrap(statistic: Callable[[list[int]], float], images: int, resamples: int) -> tuple[float, float]:
    """Percentile interval over images drawn with replacement."""
    draws = np.random.default_rng(0).integers(0, images, (resamples, images))
    values = [float(statistic([int(i) for i in row])) for row in draws]
    return float(np.nanquantile(values, 0.025)), float(np.nanquantile(values, 0.975))


def mean(values: Sequence[float]) -> float:
    present = [value for value in values if not math.isnan(value)]
    return sum(present) / len(present) if present else math.nan
