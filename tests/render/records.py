"""Synthetic inspection records: made of random logits, but every number follows from them as it does for a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Record = dict[str, Any]
Floats = NDArray[np.floating[Any]]
SITES = ("embed", "attn_out", "resid_mid", "mlp_out", "resid_post")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Sizes:
    """What a record is about; the defaults are those of the small built-in model."""

    blocks: int = 6
    heads: int = 4
    classes: Sequence[str] = CIFAR
    prefix: tuple[str, ...] = ("cls",)
    grid: tuple[int, int] = (8, 8)
    input_size: tuple[int, int] = (32, 32)
    images: Sequence[str] = ("chelsea.png",)
    target: int = 3
    chosen: str = "predicted"
    others: tuple[int, ...] = (1, 5)
    against: int | None = None
    problem_type: str = "single_label_classification"
    name: str = "builtin:cifar10"
    seed: int = 0
    center: tuple[float, float] = field(default=(0.45, 0.4))  # where the object is: shares of height and width

    @property
    def pooling(self) -> str:
        return "cls" if "cls" in self.prefix else "avg"


def make_record(sizes: Sizes) -> Record:
    """A record as `present/tables.py` makes it. The class of interest is one class for all images."""
    random = np.random.default_rng(sizes.seed)
    images = [_image(sizes, name, random) for name in sizes.images]
    used = {sizes.target, *_others(sizes)}
    for image in images:
        used |= {one["index"] for one in image["predictions"]}
        used |= {int(index) for index in np.unique((image["trajectory"] or {}).get("top", []))}
        for site in image["tokens"].values():
            used |= {int(index) for index in np.unique(site["top"])}
    return {
        "classlens": "0.1.0",
        "model": {
            "name": sizes.name,
            "blocks": sizes.blocks,
            "heads": sizes.heads,
            "num_classes": len(sizes.classes),
            "problem_type": sizes.problem_type,
            "pooling": sizes.pooling,
            "prefix": list(sizes.prefix),
            "queries": [sizes.prefix.index("cls")] if sizes.pooling == "cls" else list(range(len(_nearness(sizes)))),
            "query": "cls" if sizes.pooling == "cls" else "mean of pooled tokens",
            "grid": list(sizes.grid),
            "input_size": list(sizes.input_size),
            "checks": {"law1": 1.2e-6, "law2": 0.0},
        },
        "class_names": {str(index): sizes.classes[index] for index in sorted(used)},
        "sites": list(SITES),
        "top_k": min(5, len(sizes.classes)),
        "edits": [],
        "images": images,
    }


def make_picture(sizes: Sizes, number: int = 0) -> Image.Image:
    """A bright disc where the object is, on a ground with some texture."""
    height, width = sizes.input_size
    random = np.random.default_rng(1000 + sizes.seed + number)
    pixels = random.uniform(60, 110, (height, width, 3))
    rows, columns = np.mgrid[0:height, 0:width]
    inside = (rows / height - sizes.center[0]) ** 2 + (columns / width - sizes.center[1]) ** 2 < 0.09
    pixels[inside] += (120, 70 + 40 * number, 20)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make_pictures(sizes: Sizes) -> list[Image.Image]:
    return [make_picture(sizes, number) for number in range(len(sizes.images))]


def _image(sizes: Sizes, name: str, random: np.random.Generator) -> Record:
    near = _nearness(sizes)
    logits_at: dict[str, list[Floats]] = {site: [] for site in SITES}
    state = random.normal(0, 1, (len(near), len(sizes.classes)))
    logits_at["embed"].append(state)
    for block in range(sizes.blocks):
        for after, site, share in (("resid_mid", "attn_out", 0.6), ("resid_post", "mlp_out", 0.4)):
            added = random.normal(0, 0.9 / np.sqrt(sizes.blocks), state.shape)
            progress = ((block + 1) / sizes.blocks) ** 2
            added[:, sizes.target] += share * 36 / sizes.blocks * progress * near
            added[:, (sizes.target + 2) % len(sizes.classes)] += share * 14 / sizes.blocks * progress * (1 - near)
            state = state + added
            logits_at[site].append(added)
            logits_at[after].append(state)
    depths = np.stack([_pooled(sizes, tokens) for tokens in (*logits_at["embed"], *logits_at["resid_post"])])
    logits = depths[-1]
    first, *others = [
        _class(sizes, category, logits_at, depths, near, random) for category in (sizes.target, *_others(sizes))
    ]
    for site, values in logits_at.items():
        first["tokens"][site] |= _top(np.stack(values), sizes)
    rival = None if sizes.against is None else {"index": sizes.against, "name": sizes.classes[sizes.against]}
    return {
        "name": name,
        "label": name,
        **first,
        "target": {**first["target"], "chosen": sizes.chosen},
        "against": rival,
        "predictions": _predictions(sizes, logits),
        "trajectory": _trajectory(depths) if sizes.problem_type == "single_label_classification" else None,
        "norms": {site: _norms(values) for site, values in logits_at.items()},
        "attention": None,
        "others": others,
    }


def _norms(values: list[Floats]) -> Record:
    norm = np.linalg.norm(np.stack(values), axis=-1)
    return {"norm": norm.tolist(), "outlier": (norm > np.quantile(norm, 0.98)).astype(int).tolist()}


def _pooled(sizes: Sizes, tokens: Floats) -> Floats:
    pooled = tokens[sizes.prefix.index("cls")] if "cls" in sizes.prefix else tokens[len(sizes.prefix) :].mean(axis=0)
    return np.asarray(pooled)


def _trajectory(depths: Floats) -> Record:
    top = np.argsort(-depths, axis=-1, kind="stable")[:, :5]
    probability = np.exp(depths) / np.exp(depths).sum(axis=1, keepdims=True)
    return {"top": top.tolist(), "probability": np.take_along_axis(probability, top, axis=1).tolist()}


def _others(sizes: Sizes) -> list[int]:
    return [category for category in sizes.others if category != sizes.target and category < len(sizes.classes)]


def _class(
    sizes: Sizes, category: int, logits_at: dict[str, list[Floats]], depths: Floats, near: Floats, random: Any
) -> Record:
    """What the record says of one class of an image."""
    logits = {site: np.stack(values) for site, values in logits_at.items()}
    own = {site: values[..., category] for site, values in logits.items()}
    ranks = {site: (values > own[site][..., None]).sum(axis=-1).tolist() for site, values in logits.items()}
    exclusive = sizes.problem_type == "single_label_classification"
    attribution = _attribution(sizes, float(depths[-1, category]), near, random)
    margin = depths[:, category] - np.delete(depths, category, axis=1).max(axis=1, initial=-np.inf)
    return {
        "target": {"index": category, "name": sizes.classes[category]},
        "tokens": {
            site: {"rank": ranks[site]} if exclusive else {"logit": np.round(own[site], 3).tolist()} for site in SITES
        },
        "blocks": _evolution(sizes, ranks["resid_post"]) if exclusive else _logits_by_block(sizes, own["resid_post"]),
        "margin": margin.tolist() if exclusive else None,
        "explanations": {
            name: {
                "label": name.replace("_", " "),
                "loss": "cross_entropy" if name == "class_gradient" else None,
                "weight": weight,
                "values": _explanation(sizes, near, random),
            }
            for name, weight in (("log_odds", 0.25 + 0.1 * category), ("class_gradient", 1.0))
        },
        "attribution": attribution,
        "largest": _largest(attribution),
    }


def _nearness(sizes: Sizes) -> Floats:
    """How much each token is about the object, 0 to 1; prefix tokens as much as the nearest image token."""
    rows, columns = sizes.grid
    row, column = np.mgrid[0:rows, 0:columns]
    distance = ((row + 0.5) / rows - sizes.center[0]) ** 2 + ((column + 0.5) / columns - sizes.center[1]) ** 2
    return np.concatenate([np.full(len(sizes.prefix), 0.9), np.exp(-distance / 0.06).ravel()])


def _top(logits: Floats, sizes: Sizes) -> Record:
    top = np.argsort(-logits, axis=-1, kind="stable")[..., : min(5, len(sizes.classes))]
    return {"top": top.tolist(), "top_logit": np.round(np.take_along_axis(logits, top, axis=-1), 3).tolist()}


def _predictions(sizes: Sizes, logits: Floats) -> list[Record]:
    probability = np.exp(logits - logits.max())
    probability /= probability.sum()
    return [
        {"index": int(i), "name": sizes.classes[i], "logit": float(logits[i]), "probability": float(probability[i])}
        for i in np.argsort(-logits, kind="stable")[:5]
    ]


def _logits_by_block(sizes: Sizes, logits: Floats) -> list[Record]:
    first = len(sizes.prefix)
    cls = sizes.prefix.index("cls") if "cls" in sizes.prefix else None
    return [
        {
            "block": block,
            "cls_logit": None if cls is None else float(values[cls]),
            "mean_logit": float(values[first:].mean()),
        }
        for block, values in enumerate(logits)
    ]


def _evolution(sizes: Sizes, ranks: list[list[int]]) -> list[Record]:
    first = len(sizes.prefix)
    cls = sizes.prefix.index("cls") if "cls" in sizes.prefix else None
    return [
        {
            "block": block,
            "cls_rank": None if cls is None else rank[cls],
            "identifiable": sum(one == 0 for one in rank[first:]) / len(rank[first:]),
        }
        for block, rank in enumerate(ranks)
    ]


def _explanation(sizes: Sizes, near: Floats, random: np.random.Generator) -> Any:
    image = near[len(sizes.prefix) :] - 0.3
    strength = random.normal(0.4, 1, (sizes.blocks, sizes.heads, 1)) * np.linspace(0.1, 1, sizes.blocks)[:, None, None]
    noise = random.normal(0, 0.15, (sizes.blocks, sizes.heads, len(image)))
    return np.round((strength * image + noise) * 0.004, 8).tolist()


def _attribution(sizes: Sizes, logit: float, near: Floats, random: np.random.Generator) -> Record:
    """Random shares of the logit; what is left over is the bias, so that the sum is exact."""
    growth = np.linspace(0.2, 1.4, sizes.blocks)
    weight = near[len(sizes.prefix) :] - 0.2
    strength = growth[:, None, None] * random.normal(0.15, 0.6, (sizes.blocks, sizes.heads, 1))
    by_token = strength * weight / abs(weight).sum()
    attention = by_token.sum(axis=2)
    if sizes.prefix:
        attention += random.normal(0, 0.05, attention.shape)
    mlp = logit * growth / growth.sum() * random.normal(0.9, 0.6, sizes.blocks)
    embed = float(random.normal(0, 0.3))
    return {
        "logit": logit,
        "embed": embed,
        "attention": attention.tolist(),
        "mlp": mlp.tolist(),
        "bias": logit - embed - float(attention.sum()) - float(mlp.sum()),
        "image_tokens": by_token.sum(axis=1).tolist(),
    }


def _largest(attribution: Record) -> Record:
    values = [
        {"block": block, "sublayer": sublayer, "value": float(value)}
        for sublayer, parts in (("attention", map(sum, attribution["attention"])), ("mlp", attribution["mlp"]))
        for block, value in enumerate(parts)
    ]
    return max(values, key=lambda one: one["value"])
