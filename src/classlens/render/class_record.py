"""What an inspection record says of one class of an image: ranks, maps and contributions; and of one beside another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from classlens.core.arrays import Array
from classlens.core.scores import Share
from classlens.explain.registry import DEFAULT_METHODS, METHODS, is_defined
from classlens.lens.facts import recorded_facts
from classlens.lens.trace import Trace
from classlens.models.view import ModelView, Site

Record = dict[str, Any]


def class_records(trace: Trace, target: Tensor, sites: tuple[Site, ...]) -> list[Record]:
    """The record of one class of each image of a trace; ``target`` holds an index per image."""
    view = trace.recording.view
    facts = {
        site: facts.sel(site=site)
        for group in (sites[:1], sites[1:])
        for facts in [recorded_facts(trace.recording, group, target).dataset(trace.names, trace.classes, target)]
        for site in group
    }
    shown = {name: _explain(trace, name, target) for name in shown_methods(view)}
    weights = {name: _weights(trace, name, target) for name in shown}
    attribution = trace.attribution(target) if _additive(view) else None
    value = "rank" if view.exclusive else "logit"
    records = []
    for number, index in enumerate(target.tolist()):
        parts = None if attribution is None else _parts(attribution.isel(image=number))
        values = {site: dataset[value].isel(image=number) for site, dataset in facts.items()}
        records.append(
            {
                "target": {"index": index, "name": trace.classes.names[index]},
                "tokens": {site: {value: _plain(values[site].values)} for site in sites},
                "blocks": _evolution(values["resid_post"]),
                "explanations": {
                    name: {
                        "label": METHODS[name].label,
                        "loss": maps.attrs.get("loss"),
                        "weight": float(weights[name][number]),
                        "values": significant(maps.values[number]),
                    }
                    for name, maps in shown.items()
                },
                "attribution": parts,
                "largest": None if parts is None else _largest(parts),
            }
        )
    return records


def shown_methods(view: ModelView) -> tuple[str, ...]:
    """The default method, and the paper's."""
    return tuple(
        dict.fromkeys([*[name for name in DEFAULT_METHODS if is_defined(METHODS[name], view)][:1], "class_gradient"])
    )


def rather_than(one: Mapping[str, Any], other: Mapping[str, Any]) -> Record:
    """Maps and contributions to one class less those to another, from the records of both.

    Every method shown is linear in the class. A class's log odds are ``(z_c - Σ_k p_k z_k) / (1 - p_c)``: times
    ``1 - p_c``, the weight of the record, their difference is that of the two logits.
    """
    explanations = {}
    for name, maps in one["explanations"].items():
        rival = other["explanations"][name]
        values = maps["weight"] * np.array(maps["values"]) - rival["weight"] * np.array(rival["values"])
        loss = None if maps["loss"] is None else "logit"
        explanations[name] = {**maps, "loss": loss, "weight": 1.0, "values": values.tolist()}
    parts = None
    if one["attribution"] is not None:
        parts = {key: (np.array(part) - other["attribution"][key]).tolist() for key, part in one["attribution"].items()}
    return {"explanations": explanations, "attribution": parts, "largest": None if parts is None else _largest(parts)}


def shown_record(image: Mapping[str, Any]) -> Mapping[str, Any]:
    """The image with its class rather than the rival, where one is given; as figures and tables show it."""
    if image["against"] is None:
        return image
    rival = next(one for one in image["others"] if one["target"]["index"] == image["against"]["index"])
    return {**image, **rather_than(image, rival)}


def class_words(image: Mapping[str, Any]) -> str:
    """The class of interest, and the class that it is compared with."""
    rival = "" if image["against"] is None else f" rather than {image['against']['name']}"
    return f"{image['target']['name']}{rival}"


def _explain(trace: Trace, name: str, target: Tensor) -> xr.DataArray:
    # Losses of other heads are no differences of logits.
    loss = {} if trace.recording.view.exclusive or "loss" not in METHODS[name].options else {"loss": "logit"}
    return trace.explain(target, method=name, **loss)


def _weights(trace: Trace, name: str, target: Tensor) -> Tensor:
    """By image, the factor that makes maps of classes differ as their logits do: ``1 - p`` for log odds."""
    logits = trace.recording.logits.cpu().double()
    if name != "log_odds" or not trace.recording.view.exclusive:
        return torch.ones(len(logits))
    others = logits.scatter(1, target[:, None], -torch.inf)
    return (others.logsumexp(dim=1) - logits.logsumexp(dim=1)).exp()


def _additive(view: ModelView) -> bool:
    """Whether a logit is a sum of contributions (law 3): that of a pool that is not linear in the tokens is none."""
    return all(readout.space.pool is None for readout in view.readouts)


def _parts(attribution: xr.Dataset) -> Record:
    image_tokens = attribution.attention_token.isel(token=attribution.token_kind.values == "image")
    return {
        "logit": float(attribution.logit),
        "embed": float(attribution.embed),
        "attention": attribution.attention.values.tolist(),
        "mlp": attribution.mlp.values.tolist(),
        "bias": float(attribution.bias),
        "image_tokens": significant(image_tokens.values.sum(axis=1)),
    }


def _evolution(values: xr.DataArray) -> list[Record]:
    """Per block, for ranks: the rank at ``[CLS]`` and the share of image tokens on top. For logits: both means."""
    kinds = values.token_kind.values
    rows = []
    for block in values.block.values:
        of_block = values.sel(block=block).values
        image, cls = of_block[kinds == "image"], of_block[kinds == "cls"]
        if values.name == "rank":
            hits = image == 0
            facts = {
                "cls_rank": int(cls[0]) if len(cls) else None,
                "identifiable": Share(int(hits.sum()), hits.size).compute(),
            }
        else:
            facts = {"cls_logit": float(cls[0]) if len(cls) else None, "mean_logit": float(image.mean())}
        rows.append({"block": int(block), **facts})
    return rows


def _largest(parts: Mapping[str, Any]) -> Record:
    """The sublayer with the largest contribution to the logit."""
    values = {"attention": np.array(parts["attention"]).sum(axis=1), "mlp": np.array(parts["mlp"])}
    sublayer = max(values, key=lambda name: float(values[name].max()))
    block = int(values[sublayer].argmax())
    return {"block": block, "sublayer": sublayer, "value": float(values[sublayer][block])}


def _plain(values: Array) -> Any:
    return values.tolist() if values.dtype.kind == "i" else rounded(values, 3)


def rounded(values: Array, digits: int) -> Any:
    return np.round(values.astype(float), digits).tolist()


def significant(values: Array) -> Any:
    """Values rounded to a millionth of the largest, too little to show in a picture."""
    largest = float(np.abs(values).max()) if values.size else 0.0
    digits = 6 - int(np.floor(np.log10(largest))) if largest > 0 else 0
    return rounded(values, digits)
