"""The inspection record of traced images, which `inspect.json` holds and the report and the figures draw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import numpy as np
import xarray as xr

from classlens.core.arrays import Array
from classlens.core.scores import Share
from classlens.lens.lens import Lens
from classlens.lens.target import Target
from classlens.lens.trace import Trace
from classlens.models.view import ModelView, Site

Record = dict[str, Any]
SITES: tuple[Site, ...] = ("embed", "attn_out", "resid_mid", "mlp_out", "resid_post")
_TOP = 5


def inspection(lens: Lens, traces: Iterable[Trace], target: Target = "predicted", *, version: str) -> Record:
    """Everything that `classlens inspect` shows, as plain numbers and names.

    ``inspection(lens, [lens.trace("cat.png")], "cat", version="0.1.0")["images"][0]["predictions"]``

    ``traces`` may be a generator: only one trace is held at a time. ``target`` is one class for all images, or
    ``"predicted"``.
    """
    view, top = lens.view, min(_TOP, len(lens.classes))
    images: list[Record] = []
    names: set[str] = set()
    classes: set[int] = set()
    grid = view.grid(view.input_size)
    for trace in traces:
        grid = trace.recording.tokens.grid
        for image in _images(trace, target, top):
            image["name"] = _unique_name(image["name"], names)
            names.add(image["name"])
            images.append(image)
            classes |= {image["target"]["index"], *(guess["index"] for guess in image["predictions"])}
            classes |= {int(index) for site in image["tokens"].values() for index in np.unique(site["top"])}
    return {
        "classlens": version,
        "model": {
            "name": view.name,
            "blocks": len(view.blocks),
            "heads": view.blocks[0].heads,
            "num_classes": view.num_classes,
            "pooling": view.pooling,
            "prefix": list(view.prefix),
            "grid": list(grid),
            "input_size": list(view.input_size),
            "checks": {"law1": lens.checks.law1, "law2": lens.checks.law2},
        },
        "class_names": {str(index): lens.classes.names[index] for index in sorted(classes)},
        "sites": list(_sites(view)),
        "top_k": top,
        "images": images,
    }


def _unique_name(name: str, taken: set[str]) -> str:
    """The name, with a number where an image of an earlier trace has it."""
    numbered = (f"{name} ({number})" for number in count(2))
    return name if name not in taken else next(candidate for candidate in numbered if candidate not in taken)


def _sites(view: ModelView) -> tuple[Site, ...]:
    return tuple(site for site in SITES if view.has_mid or site != "resid_mid")


def _images(trace: Trace, target: Target, top: int) -> Iterator[Record]:
    view = trace.recording.view
    sites = _sites(view)
    facts = {"embed": trace.facts("embed", target).isel(site=0), **_by_site(trace.facts(sites[1:], target))}
    tops = {site: trace.top(site, top) for site in sites}
    importance = trace.explain(target, method="class_gradient")
    # The logit of a pool that is not linear in the tokens is no sum of contributions (law 3).
    additive = all(readout.space.pool is None for readout in view.readouts)
    attribution = trace.attribution(target) if additive else None
    predictions = _predictions(trace, top)
    for number in range(len(trace)):
        yield _image(
            trace,
            number,
            chosen="predicted" if isinstance(target, str) and target == "predicted" else "given",
            facts={site: dataset.isel(image=number) for site, dataset in facts.items()},
            tops={site: classes.isel(image=number) for site, classes in tops.items()},
            importance=importance.isel(image=number),
            attribution=None if attribution is None else attribution.isel(image=number),
            predictions=predictions[number],
        )


def _by_site(facts: xr.Dataset) -> dict[str, xr.Dataset]:
    return {str(site): facts.sel(site=site) for site in facts.site.values}


def _predictions(trace: Trace, top: int) -> list[list[Record]]:
    logits = trace.model_logits.values
    probability = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    rows = []
    for image in range(len(trace)):
        order = np.argsort(-logits[image], kind="stable")[:top]
        rows.append(
            [
                {
                    "index": int(index),
                    "name": trace.classes.names[index],
                    "logit": float(logits[image, index]),
                    "probability": float(probability[image, index]),
                }
                for index in order
            ]
        )
    return rows


def _image(
    trace: Trace,
    number: int,
    *,
    chosen: str,
    facts: dict[str, xr.Dataset],
    tops: dict[str, xr.DataArray],
    importance: xr.DataArray,
    attribution: xr.Dataset | None,
    predictions: list[Record],
) -> Record:
    target = int(importance.target)
    return {
        "name": trace.names[number],
        "target": {"index": target, "name": trace.classes.names[target], "chosen": chosen},
        "predictions": predictions,
        "tokens": {
            site: {
                "rank": facts[site]["rank"].values.tolist(),
                "top": tops[site].values.tolist(),
                "top_logit": _rounded(tops[site].logit.values, 3),
            }
            for site in facts
        },
        "blocks": _evolution(facts["resid_post"]["rank"]),
        "explanation": {
            "loss": importance.attrs["loss"],
            "query": _query(trace.recording.view),
            "values": _significant(importance.values),
        },
        "attribution": None if attribution is None else _parts(attribution),
        "largest": None if attribution is None else _largest(attribution),
    }


def _query(view: ModelView) -> str:
    """The tokens whose attention is explained."""
    if len(view.readouts) > 1:
        # A head that is split in halves has one bias, which counts for one half only.
        split = not all(readout.counts_bias for readout in view.readouts)
        return "cls and mean of pooled tokens" if split else "tokens of both heads"
    return "cls" if view.pooling == "cls" else "mean of pooled tokens"


def _parts(attribution: xr.Dataset) -> Record:
    image_tokens = attribution.attention_token.isel(token=attribution.token_kind.values == "image")
    return {
        "logit": float(attribution.logit),
        "embed": float(attribution.embed),
        "attention": attribution.attention.values.tolist(),
        "mlp": attribution.mlp.values.tolist(),
        "bias": float(attribution.bias),
        "image_tokens": _significant(image_tokens.values.sum(axis=1)),
    }


def _evolution(rank: xr.DataArray) -> list[Record]:
    """Per block: the rank of the class at ``[CLS]`` and the share of image tokens that have it on top."""
    kinds = rank.token_kind.values
    rows = []
    for block in rank.block.values:
        ranks = rank.sel(block=block).values
        hits = ranks[kinds == "image"] == 0
        cls = ranks[kinds == "cls"]
        rows.append(
            {
                "block": int(block),
                "cls_rank": int(cls[0]) if len(cls) else None,
                "identifiable": Share(int(hits.sum()), hits.size).compute(),
            }
        )
    return rows


def _largest(attribution: xr.Dataset) -> Record:
    """The sublayer with the largest contribution to the logit."""
    parts = {"attention": attribution.attention.sum("head").values, "mlp": attribution.mlp.values}
    sublayer = max(parts, key=lambda name: float(parts[name].max()))
    block = int(parts[sublayer].argmax())
    return {"block": block, "sublayer": sublayer, "value": float(parts[sublayer][block])}


def _rounded(values: Array, digits: int) -> Any:
    return np.round(values.astype(float), digits).tolist()


def _significant(values: Array) -> Any:
    """Values rounded to a millionth of the largest, too little to show in a picture."""
    largest = float(np.abs(values).max()) if values.size else 0.0
    digits = 6 - int(np.floor(np.log10(largest))) if largest > 0 else 0
    return _rounded(values, digits)
