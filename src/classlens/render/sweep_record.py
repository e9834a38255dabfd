"""The record of causal sweeps of image pairs, which `sweep.json` holds and the page and the figures draw."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from classlens.forward.sweep_parts import SWEEP_PARTS
from classlens.lens.lens import Lens
from classlens.lens.sweep_agreement import sweep_agreement
from classlens.lens.target import Target, is_predicted
from classlens.lens.trace import Trace
from classlens.models.corruptions import Corruption
from classlens.render.image_names import labels_of, unique_name
from classlens.render.sweep_words import effect_words, name_template, part_labels

Record = dict[str, Any]

LARGEST = 30
"""Number of effects that a record names one by one."""


@dataclass(frozen=True)
class SweptPair:
    """One clean image, its corrupt image (a file, or what makes it), and their sweep.

    ``exact`` is the exact sweep of the same parts, where ``result`` is an estimate to compare with it.
    """

    clean: Trace
    corrupt: Trace
    source: str | Corruption
    result: xr.Dataset
    exact: xr.Dataset | None = None


def sweep_record(
    lens: Lens,
    pairs: Iterable[SweptPair],
    target: Target,
    against: Target | None,
    *,
    checkpoint: str | None,
    version: str,
) -> Record:
    """Everything that `classlens sweep` shows, as plain numbers and names; effects that are not defined are None.

    ``pairs`` may be a generator: only one is held at a time. ``target`` and ``against`` are as given to ``Lens.sweep``.
    """
    view = lens.view
    record: Record = {
        "classlens": version,
        "model": {
            "name": view.name,
            "checkpoint": checkpoint,
            "blocks": len(view.blocks),
            "heads": view.blocks[0].heads,
            "num_classes": view.num_classes,
            "problem_type": view.problem_type if view.exclusive or view.multi_label else "regression",
            "prefix": list(view.prefix),
            "input_size": list(view.input_size),
            "dtype": str(view.dtype).removeprefix("torch."),
            "transform": repr(lens.preprocessing.transform)[:2000],
        },
    }
    images: list[Record] = []
    for pair in pairs:
        result = pair.result
        record |= {key: result.attrs.get(key) for key in ("over", "metric", "direction", "site", "steps")}
        record["approximate"] = bool(result.attrs.get("approximate", 0))
        record["blocks"] = result["block"].values.tolist()
        images.append(_image(record, pair, target, against, {image["name"] for image in images}))
    for image, label in zip(images, labels_of([image["name"] for image in images]), strict=True):
        image["label"] = label
    return {**record, "images": images}


def _image(record: Record, pair: SweptPair, target: Target, against: Target | None, taken: set[str]) -> Record:
    result, source = pair.result.isel(image=0), pair.source
    parts = result[SWEEP_PARTS[record["over"]].dim].values.tolist()
    image: Record = {
        "name": unique_name(pair.clean.names[0], taken),
        "corrupt_name": source if isinstance(source, str) else _corruption(source),
        "corrupt_label": PurePath(source).name if isinstance(source, str) else _corruption(source),
        "corruption": None if isinstance(source, str) else vars(source),
        "target": _class(result, "target", target),
        "against": None if against is None else _class(result, "against", against),
        "predictions": {"clean": _prediction(pair.clean), "corrupt": _prediction(pair.corrupt)},
        "clean": float(result["clean"]),
        "corrupt": float(result["corrupt"]),
        "agreement": None if pair.exact is None else _agreement(pair.exact, pair.result),
        "grid": list(pair.clean.recording.tokens.grid),
        "parts": parts,
        "patched": result["patched"].values.tolist(),
        "effect": _defined(result["effect"].values),
    }
    return {**image, "largest": _largest(record, image, result["effect"].values)}


def _corruption(corruption: Corruption) -> str:
    return corruption.kind.replace("_", " ") + ("" if corruption.amount is None else f" {corruption.amount:g}")


def _class(result: xr.Dataset, name: str, given: Target) -> Record:
    chosen = "predicted" if is_predicted(given) else "given"
    return {"index": int(result[name]), "name": str(result[f"{name}_name"].values), "chosen": chosen}


def _prediction(trace: Trace) -> Record:
    """The class with the largest logit, and its probability where outputs have one."""
    logits = torch.from_numpy(trace.model_logits.values)
    index = int(logits[0].argmax())
    probability = trace.recording.view.probabilities(logits)
    return {
        "index": index,
        "name": trace.classes.names[index],
        "logit": float(logits[0, index]),
        "probability": None if probability is None else float(probability[0, index]),
    }


def _agreement(exact: xr.Dataset, estimate: xr.Dataset) -> Record:
    correlation = float(sweep_agreement(exact, estimate)[0])
    return {"rank_correlation": None if np.isnan(correlation) else correlation}


def _defined(effects: NDArray[Any]) -> list[list[float | None]]:
    return [[None if np.isnan(effect) else effect for effect in row] for row in effects.tolist()]


def _largest(record: Record, image: Record, effects: NDArray[Any]) -> list[Record]:
    """The parts with the largest effects of either sign, the largest first; none where effects are not defined."""
    if np.isnan(effects).any():
        return []
    template, labels = name_template(record), part_labels(record, image)
    largest = []
    for place in np.argsort(-np.abs(effects), axis=None, kind="stable")[:LARGEST].tolist():
        row, column = divmod(place, effects.shape[1])
        block, effect = record["blocks"][row], float(effects[row, column])
        name = template.format(part=labels[column], block=block)
        largest.append(
            {
                "block": block,
                "part": image["parts"][column],
                "name": name,
                "effect": effect,
                "patched": image["patched"][row][column],
                "words": effect_words(record, name, effect),
            }
        )
    return largest
