"""The record of one class of an image: ranks, maps and contributions; and of one class against another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from classlens.core.arrays import Array
from classlens.core.depth_facts import top_classes
from classlens.core.scores import Share
from classlens.core.steps import compute_dtype
from classlens.explain.attribution import Attribution, attribute_each, odds_weights
from classlens.explain.class_logits import check_finite, token_logits
from classlens.explain.registry import DEFAULT_METHODS, METHODS, is_defined
from classlens.forward.isolation import isolated
from classlens.forward.recording import Recording
from classlens.lens.facts import site_blocks
from classlens.lens.trace import Trace
from classlens.models.view import ModelView, Site

Record = dict[str, Any]


class SiteFacts(NamedTuple):
    """Classes of tokens at a site, ``[image, …, block, token]``.

    ``standing``: ranks of each candidate class, or its logits where outputs have no ranks; its second axis is that of
    the candidates. ``top``, ``top_logit``: the classes with the largest logits, on the last axis.
    """

    standing: Tensor
    top: Int[Tensor, "image block token place"]
    top_logit: Float[Tensor, "image block token place"]


@isolated
def class_records(
    trace: Trace, candidates: Int[Tensor, "image place"], facts: Mapping[Site, SiteFacts]
) -> list[list[Record]]:
    """The record of each candidate class of each image of a trace, by image and place; one pass for all classes."""
    recording, classes = trace.recording, candidates.unbind(dim=1)
    value = "rank" if recording.view.exclusive else "logit"
    attributions, maps = _attributed(trace, classes)
    records: list[list[Record]] = []
    for number in range(len(trace)):
        records.append([])
        for place, target in enumerate(classes):
            index = int(target[number])
            parts = attributions and _parts(attributions[place], recording, number, index)
            values = {site: of_site.standing[number, place].numpy() for site, of_site in facts.items()}
            explanations = {name: _map(trace, name, by_place[place], target, number) for name, by_place in maps.items()}
            records[-1].append(
                {
                    "target": {"index": index, "name": trace.classes.names[index]},
                    "tokens": {site: {value: _plain(values[site])} for site in facts},
                    "blocks": _evolution(values["resid_post"], recording.tokens.kinds),
                    "explanations": explanations,
                    "attribution": parts,
                    "largest": parts and _largest(parts),
                }
            )
    return records


@isolated
def site_facts(trace: Trace, candidates: Int[Tensor, "image place"], site: Site, top: int) -> SiteFacts:
    """Candidates and largest classes of every token at a site, from one projection; logits have to be finite."""
    recording, view = trace.recording, trace.recording.view
    blocks, tokens_count = len(site_blocks(view, site)), recording.tokens.count
    kind = torch.int64 if view.exclusive else torch.float64
    standing = torch.empty(*candidates.shape, blocks, tokens_count, dtype=kind)
    best = torch.empty(len(recording), blocks, tokens_count, top, dtype=torch.int64)
    best_logit = torch.empty(best.shape, dtype=compute_dtype(view.dtype))
    for images, block, tokens, logits in token_logits(recording, site):
        for place, index in enumerate(candidates[images].to(logits.device).unbind(dim=1)):
            class_logits = logits.gather(2, index[:, None, None].expand(-1, logits.shape[1], 1))
            # A sum over floats is vectorized, and exact up to 2**24 classes.
            values = (logits > class_logits).sum(dim=2, dtype=torch.float32) if view.exclusive else class_logits[..., 0]
            standing[images, place, block, tokens] = values.to(standing)
        classes = top_classes(logits, top)
        best[images, block, tokens] = classes.cpu()
        best_logit[images, block, tokens] = logits.gather(-1, classes).to(best_logit)
    check_finite(best_logit)
    return SiteFacts(standing, best, best_logit)


def _attributed(trace: Trace, classes: Sequence[Tensor]) -> tuple[list[Attribution] | None, dict[str, list[Tensor]]]:
    """The attribution of each class, where it is defined, and the maps of each shown method, by place."""
    recording = trace.recording
    device, image_tokens = recording.view.device, recording.tokens.image
    maps: dict[str, list[Tensor]] = {}
    attributions: list[Attribution] | None = None
    if all(readout.space.pool is None for readout in recording.view.readouts):
        odds = [odds_weights(recording, target).to(device) for target in classes]
        both = attribute_each(recording, [*(target.to(device) for target in classes), *odds])
        attributions, odds_attributions = both[: len(classes)], both[len(classes) :]
        first = shown_methods(recording.view)[0]
        maps[first] = [part.attention[..., image_tokens] for part in odds_attributions]
    options = {} if recording.view.exclusive else {"loss": "logit"}
    gradients = [trace.explain(target, method="class_gradient", **options) for target in classes]
    maps["class_gradient"] = [torch.from_numpy(gradient.values) for gradient in gradients]
    return attributions, maps


def _map(trace: Trace, name: str, values: Tensor, target: Tensor, number: int) -> Record:
    # Losses of other heads than those of exclusive classes are no differences of logits.
    loss = ("cross_entropy" if trace.recording.view.exclusive else "logit") if name == "class_gradient" else None
    weight = _rivals_share(trace, number, int(target[number])) if name == "log_odds" else 1.0
    return {"label": METHODS[name].label, "loss": loss, "weight": weight, "values": significant(values[number].numpy())}


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


def _rivals_share(trace: Trace, number: int, index: int) -> float:
    """``1 - p`` of a class, the factor that makes log odds of classes differ as their logits do; 1 for a label."""
    if not trace.recording.view.exclusive:
        return 1.0
    logits = trace.recording.logits[number].cpu().double()
    rivals = torch.cat([logits[:index], logits[index + 1 :]])
    return float((rivals.logsumexp(dim=0) - logits.logsumexp(dim=0)).exp())


def _parts(attribution: Attribution, recording: Recording, number: int, index: int) -> Record:
    by_token = attribution.attention[number]
    heads = by_token.sum(dim=-1)
    if recording.edited:
        heads = heads + attribution.replaced[number]
    # A whole output of attention that an edit put in comes from no head.
    put_in = {"edit": attribution.edit[number].tolist()} if {"attn_out", "attn_raw"} & recording.edited_points() else {}
    return {
        "logit": float(recording.logits[number, index]),
        "embed": float(attribution.embed[number]),
        "attention": heads.tolist(),
        "mlp": attribution.mlp[number].tolist(),
        "bias": float(attribution.bias[number]),
        **put_in,
        "image_tokens": significant(by_token[..., recording.tokens.image].sum(dim=1).numpy()),
    }


def _evolution(values: Array, kinds: Sequence[str]) -> list[Record]:
    """Per block, for ranks: the rank at ``[CLS]`` and the share of image tokens on top. For logits: both means."""
    is_image, is_cls = (np.array(kinds) == kind for kind in ("image", "cls"))
    rows = []
    for block, of_block in enumerate(values):
        image, cls = of_block[is_image], of_block[is_cls]
        facts: Record
        if values.dtype.kind == "i":
            hits = image == 0
            facts = {
                "cls_rank": int(cls[0]) if len(cls) else None,
                "identifiable": Share(int(hits.sum()), hits.size).compute(),
            }
        else:
            facts = {"cls_logit": float(cls[0]) if len(cls) else None, "mean_logit": float(image.mean())}
        rows.append({"block": block, **facts})
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
