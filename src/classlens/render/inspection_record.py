"""The inspection record of traced images, which `inspect.json` holds and the report and the figures draw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from classlens.lens.lens import Lens
from classlens.lens.target import Target, class_indices, is_predicted
from classlens.lens.trace import Trace
from classlens.models.view import ModelView, Site, Tokens
from classlens.render.attention_record import attention_records
from classlens.render.class_record import class_records, rounded, shown_methods, significant, site_facts
from classlens.render.image_names import labels_of, unique_name
from classlens.render.trajectory_record import decisions

Record = dict[str, Any]
SITES: tuple[Site, ...] = ("embed", "attn_out", "resid_mid", "mlp_out", "resid_post")
_TOP = 5
# Numbers of the maps of all classes of an image, two bytes each on the page: about 1.2 MB.
_MAP_NUMBERS = 450_000


def inspection(
    lens: Lens,
    traces: Iterable[Trace],
    target: Target = "predicted",
    against: Target | None = None,
    *,
    more: Sequence[Target] = (),
    edits: Sequence[str] = (),
    version: str,
    compression: int = 6,
) -> Record:
    """Everything that `classlens inspect` shows, as plain numbers and names.

    ``inspection(lens, [lens.trace("cat.png")], "cat", "dog", version="0.1.0")["images"][0]["predictions"]``

    ``traces`` may be a generator: only one trace is held at a time. ``target`` is one class for all images, a tensor of
    one for each image of all traces, or ``"predicted"``; the images of each trace are added once more for each class of
    ``more``. ``against``, given like ``target``, is a class that it is compared with. ``edits`` names the edits that
    the model runs with. Each image holds the maps of its likeliest classes: five, or fewer for a large model, and these
    two. ``compression`` is that of attention weights: 1, the fastest, to 9, the smallest.
    """
    view, top = lens.view, min(_TOP, len(lens.classes))
    images: list[Record] = []
    names: set[str] = set()
    classes: set[int] = set()
    tokens, traced = view.tokens(view.input_size), 0
    for trace in traces:
        tokens, traced = trace.recording.tokens, traced + len(trace)
        part = slice(traced - len(trace), traced)
        rival = _of_part(against, part)
        for image in chain.from_iterable(
            _images(trace, _of_part(each, part), rival, top, compression) for each in (target, *more)
        ):
            image["name"] = unique_name(image["name"], names)
            names.add(image["name"])
            images.append(image)
            classes |= {one["target"]["index"] for one in (image, *image["others"])}
            classes |= {guess["index"] for guess in image["predictions"]}
            classes |= {int(index) for site in image["tokens"].values() for index in np.unique(site["top"])}
            classes |= {int(index) for index in np.unique((image["trajectory"] or {}).get("top", []))}
    for image, label in zip(images, labels_of([image["name"] for image in images]), strict=True):
        image["label"] = label
    return {
        "classlens": version,
        "model": {
            "name": view.name,
            "blocks": len(view.blocks),
            "heads": view.blocks[0].heads,
            "num_classes": view.num_classes,
            "problem_type": view.problem_type if view.exclusive or view.multi_label else "regression",
            "pooling": view.pooling,
            "prefix": list(view.prefix),
            "queries": _queries(view, tokens),
            "query": _query(view),
            "grid": list(tokens.grid),
            "input_size": list(view.input_size),
            "checks": {"law1": lens.checks.law1, "law2": lens.checks.law2},
        },
        "class_names": {str(index): lens.classes.names[index] for index in sorted(classes)},
        "sites": list(_sites(view)),
        "top_k": top,
        "edits": list(edits),
        "images": images,
    }


def _of_part(target: Any, images: slice) -> Any:
    """The classes of some images where each image has its own."""
    return target[images] if isinstance(target, Tensor) and target.ndim else target


def _sites(view: ModelView) -> tuple[Site, ...]:
    return tuple(site for site in SITES if view.has_mid or site != "resid_mid")


def _images(trace: Trace, target: Target, against: Target | None, top: int, compression: int) -> Iterator[Record]:
    sites = _sites(trace.recording.view)
    predictions = _predictions(trace, top)
    candidates = _candidates(trace, target, against)
    facts = {site: site_facts(trace, candidates, site, top) for site in sites}
    records = class_records(trace, candidates, facts)
    decided = decisions(trace, candidates, top)
    for records_of_image, decision in zip(records, decided, strict=True):
        for place, record in enumerate(records_of_image):
            record["margin"] = decision.margins and decision.margins[place]
    attention = attention_records(trace, compression)
    norms = {site: trace.norms(site) for site in sites}
    for number in range(len(trace)):
        image, *others = records[number]
        distinct = {record["target"]["index"]: record for record in reversed(others)}
        distinct.pop(image["target"]["index"], None)
        rival = None if against is None else int(candidates[number, 1])
        rival = None if rival == image["target"]["index"] else rival  # as a prediction may be
        for site in sites:
            best, logit = facts[site].top[number], facts[site].top_logit[number]
            image["tokens"][site] |= {"top": best.tolist(), "top_logit": rounded(logit.numpy(), 3)}
        yield {
            "name": trace.names[number],
            **image,
            "target": {**image["target"], "chosen": "predicted" if is_predicted(target) else "given"},
            "against": None if rival is None else {"index": rival, "name": trace.classes.names[rival]},
            "predictions": predictions[number],
            "norms": {site: _norms(found.isel(image=number)) for site, found in norms.items()},
            "trajectory": decided[number].trajectory,
            "attention": attention[number],
            "others": list(distinct.values())[::-1],
        }


def _norms(found: xr.Dataset) -> Record:
    """Lengths of tokens by block, and 1 for outliers."""
    return {"norm": significant(found["norm"].values), "outlier": found["outlier"].values.astype(int).tolist()}


def _candidates(trace: Trace, target: Target, against: Target | None) -> Tensor:
    """The classes that an image is shown for, ``[image, place]``: of interest, the rival if any, then the likeliest."""
    view, logits = trace.recording.view, trace.recording.logits.cpu()
    image_tokens = trace.recording.tokens.grid[0] * trace.recording.tokens.grid[1]
    maps = len(shown_methods(view)) * sum(block.heads for block in view.blocks) * image_tokens
    likeliest = logits.topk(min(view.num_classes, max(2, min(_TOP, _MAP_NUMBERS // maps))), dim=1).indices
    chosen = [
        likeliest[:, 0] if is_predicted(each) else class_indices(trace.classes, each, len(trace))
        for each in (target, against)
        if each is not None
    ]
    return torch.stack([*chosen, *likeliest.unbind(dim=1)], dim=1)


def _predictions(trace: Trace, top: int) -> list[list[Record]]:
    logits = torch.from_numpy(trace.model_logits.values)
    probability = trace.recording.view.probabilities(logits)
    rows = []
    for image in range(len(trace)):
        order = torch.argsort(-logits[image], stable=True)[:top].tolist()
        rows.append(
            [
                {
                    "index": index,
                    "name": trace.classes.names[index],
                    "logit": float(logits[image, index]),
                    "probability": None if probability is None else float(probability[image, index]),
                }
                for index in order
            ]
        )
    return rows


def _queries(view: ModelView, tokens: Tokens) -> list[int]:
    """Positions of the tokens whose attention is explained."""
    return sorted({position for readout in view.readouts for position in range(*readout.pooled.indices(tokens.count))})


def _query(view: ModelView) -> str:
    """The tokens whose attention is explained, in words."""
    if len(view.readouts) > 1:
        # A head that is split in halves has one bias, which counts for one half only.
        split = not all(readout.counts_bias for readout in view.readouts)
        return "cls and mean of pooled tokens" if split else "tokens of both heads"
    return "cls" if view.pooling == "cls" else "mean of pooled tokens"
