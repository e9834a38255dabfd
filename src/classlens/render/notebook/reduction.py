"""Smaller inspection records for notebooks, without the largest optional parts, and words for what is left out."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

Record = Mapping[str, Any]
_SITE = "resid_post"


def reductions(record: Record) -> Iterator[tuple[Record, list[str]]]:
    """The record, then smaller and smaller ones, each with words for what it leaves out.

    Left out are first the attention of tokens that the head does not pool, then all attention, then the classes on
    offer beside the class of interest and its rival, the least likely first, then other sites than ``resid_post``.
    """
    yield record, []
    pooled = _with_images(record, _pooled_attention, record["model"]["queries"])
    if pooled is not None:
        yield pooled, ["attention of tokens that the head of the model does not pool"]
    words = ["attention of every head"] if any(image["attention"] for image in record["images"]) else []
    record = {**record, "images": [{**image, "attention": None} for image in record["images"]]}
    if words:
        yield record, words
    most = max(len(_optional(image)) for image in record["images"])
    for count in range(1, most + 1):
        fewer = {**record, "images": [_fewer_classes(image, count) for image in record["images"]]}
        yield fewer, [*words, f"maps of the {count} least likely of the classes on offer"]
    record, words = fewer if most else record, [*words, *(["maps of classes on offer"] if most else [])]
    if record["sites"] != [_SITE]:
        yield _one_site(record), [*words, "tokens at other places than after each block"]


def _with_images(record: Record, change: Any, *arguments: Any) -> Record | None:
    """The record with each image changed; None where an image stays as it is."""
    images = [change(image, *arguments) for image in record["images"]]
    return None if any(image is None for image in images) else {**record, "images": images}


def _pooled_attention(image: Record, queries: list[int]) -> Record | None:
    """The image with the attention of some queries; None where it holds no others, or these are hardly fewer."""
    packed = image["attention"]
    if packed is None or len(queries) > len(packed["queries"]) / 2:
        return None
    kept = [packed["queries"].index(query) for query in queries]
    levels = np.frombuffer(zlib.decompress(base64.b64decode(packed["deflate"])), np.uint8).reshape(packed["shape"])
    levels = np.ascontiguousarray(levels[:, :, kept])
    facts = {name: np.asarray(packed[name])[:, :, kept].tolist() for name in ("largest", "entropy", "distance")}
    deflate = base64.b64encode(zlib.compress(levels.tobytes())).decode("ascii")
    shape = list(levels.shape)
    return {**image, "attention": {**packed, **facts, "queries": queries, "shape": shape, "deflate": deflate}}


def _optional(image: Record) -> list[Record]:
    """Classes beside the class of interest and its rival."""
    rival = image["against"] and image["against"]["index"]
    return [one for one in image["others"] if one["target"]["index"] != rival]


def _fewer_classes(image: Record, count: int) -> Record:
    optional = _optional(image)
    dropped = [one["target"]["index"] for one in optional[max(0, len(optional) - count) :]]
    return {**image, "others": [one for one in image["others"] if one["target"]["index"] not in dropped]}


def _one_site(record: Record) -> Record:
    images = []
    for image in record["images"]:
        others = [{**one, "tokens": {_SITE: one["tokens"][_SITE]}} for one in image["others"]]
        kept = {name: {_SITE: image[name][_SITE]} for name in ("tokens", "norms")}
        images.append({**image, **kept, "others": others})
    return {**record, "sites": [_SITE], "images": images}
