"""From a trace to the inspection record: what `inspect.json` holds and the report and figures draw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import numpy as np
import xarray as xr

from classlens.core.scores import Share
from classlens.lens.lens import Lens
from classlens.lens.target import Target
from classlens.lens.trace import Trace
from classlens.models.view import ModelView, Site

Record = dict[str, Any]
SITES: tuple[Site, ...] = ("embed", "attn_out", "resid_mid", "mlp_out", "resid_post")
_TOP = 5


def inspection(lens: Lens, traces: Iterable[Trace], target: Target = "predicted", *, version: str) -> Record:
    """Everything `classlens inspect` shows, as plain numbers and names.

    ``inspection(lens, [lens.trace("cat.png")], "cat", version="0.1.0")["images"][0]["predictions"]``

    ``traces`` are taken one after the other, so that only one is held. ``target`` is one class for all images, or
    ``"predicted"``.
    """
    view, top = lens.view, min(_TOP, len(lens.classes))
    images: list[Record] = []
    names: set[str] = set()
    used: set[int] = set()
    grid = view.grid(view.input_size)
    for trace in traces:
        grid = trace.recording.tokens.grid
        for image in _images(trace, target, top):
            image["name"] = _told_apart(image["name"], names)
            names.add(image["name"])
            images.append(image)
            used |= {image["target"]["index"], *(one["index"] for one in image["predictions"])}
            used |= {int(i) for found in image["tokens"].values() for i in np.unique(found["top"])}
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
        "class_names": {str(index): lens.classes.names[index] for index in sorted(used)},
        "sites": list(_sites(view)),
        "top_k": top,
        "images": images,
    }


def _told_apart(name: str, taken: set[str]) -> str:
    """The name, or with a number where an image of an earlier trace has it."""
    others = (f"{name} ({number})" for number in count(2))
    return name if name not in taken else next(other for other in others if other not in taken)


def _sites(view: ModelView) -> tuple[Site, ...]:
    return tuple(site for site in SITES if view.has_mid or site != "resid_mid")


def _images(trace: Trace, target: Target, top: int) -> Iterator[Record]:
    view = trace.recording.view
    sites = _sites(view)
    facts = {"embed": trace.facts("embed", target).isel(site=0), **_by_site(trace.facts(sites[1:], target))}
    tops = {site: trace.top(site, top) for site in sites}
    importance = trace.explain(target)
    # A pool that is not linear in the tokens has no parts to add up (law 3).
    additive = all(readout.space.pool is None for readout in view.readouts)
    attribution = trace.attribution(target) if additive else None
    predictions = _predictions(trace, top)
    for number in range(len(trace)):
        yield _image(
            trace,
            number,
            chosen="predicted" if isinstance(target, str) and target == "predicted" else "given",
            facts={site: found.isel(image=number) for site, found in facts.items()},
            tops={site: found.isel(image=number) for site, found in tops.items()},
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
    """Whose attention the explanation is about."""
    if len(view.readouts) > 1:
        # One head in two halves has one bias, which the second half leaves out.
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
    """Per block: the rank of the class at `[CLS]` and the share of image tokens that have it on top."""
    kinds = rank.token_kind.values
    rows = []
    for block in rank.block.values:
        one = rank.sel(block=block)
        hits = one.values[kinds == "image"] == 0
        cls = one.values[kinds == "cls"]
        rows.append(
            {
                "block": int(block),
                "cls_rank": int(cls[0]) if len(cls) else None,
                "identifiable": Share(int(hits.sum()), hits.size).compute(),
            }
        )
    return rows


def _largest(attribution: xr.Dataset) -> Record:
    """The sublayer that adds most to the logit."""
    parts = {"attention": attribution.attention.sum("head").values, "mlp": attribution.mlp.values}
    sublayer = max(parts, key=lambda name: float(parts[name].max()))
    block = int(parts[sublayer].argmax())
    return {"block": block, "sublayer": sublayer, "value": float(parts[sublayer][block])}


def _rounded(values: np.ndarray[Any, Any], digits: int) -> Any:
    return np.round(values.astype(float), digits).tolist()


def _significant(values: np.ndarray[Any, Any]) -> Any:
    """Rounded to a millionth of the largest value, which no picture shows."""
    largest = float(np.abs(values).max()) if values.size else 0.0
    digits = 6 - int(np.floor(np.log10(largest))) if largest > 0 else 0
    return _rounded(values, digits)
