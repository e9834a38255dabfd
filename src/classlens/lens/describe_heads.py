"""Heads of CLIP models in words: the prompts that span what a head writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import xarray as xr

from classlens.core.arguments import AtLeast1, Takes, checked
from classlens.core.text_span import text_span
from classlens.errors import ClasslensError
from classlens.explain.batching import slices
from classlens.forward.active_edits import active_edits
from classlens.forward.edits.selection import Indices, block_indices
from classlens.forward.head_outputs import head_outputs
from classlens.forward.isolation import isolated
from classlens.lens.images import Images
from classlens.lens.lens import Lens
from classlens.models.open_clip_text import ZeroShotClassifier, text_embeddings
from classlens.models.prompts import read_list

Prompts = Annotated[Sequence[str] | str | Path, Takes("a list of texts, or a file with one a line")]


@isolated
@checked
def describe_heads(
    lens: Lens,
    images: Images,
    prompts: Prompts,
    *,
    blocks: Indices | None = None,
    k: AtLeast1 = 5,
    batch_size: AtLeast1 = 32,
) -> xr.Dataset:
    """Name what each head of a CLIP model writes, by the prompts that explain most of it (TextSpan).

    The output of a head is its direct contribution to the image embedding, with the scales of all norms held, that of
    the embedding's length too. Outputs are centered over images, and prompts are chosen one after another: each time
    the one whose embedding, within the span of the outputs, has the inner product with them that varies most, which is
    then projected out. Source: Gandelsman, Efros and Steinhardt, *Interpreting CLIP's Image Representation via
    Text-Based Decomposition*, ICLR 2024.

    Args:
        lens: a model of OpenCLIP, by its name or from ``classlens.models.open_clip.classifier``.
        images: at least two, as for ``Lens.trace``; hundreds of varied ones give heads something to vary over.
        prompts: texts, or a file with one a line; general ones, such as ``"a photo of something red"``.
        blocks: indices of blocks; None for all. The last ones write most of the embedding directly.
        k: prompts of each head; all of fewer prompts.
        batch_size: images in one forward pass.

    Returns:
        Dims ``block, head, rank``, the best first: ``prompt``, its index ``prompt_index``, and ``explained``, the share
        of the variance of the head's outputs that the prompts up to this rank explain, 0 to 1. Where nothing is left to
        explain, ``prompt`` is empty and its index -1. RAM: 4 bytes × images × blocks × heads × embedding width.

    Raises:
        ClasslensError: another model than one of OpenCLIP, one that pools by attention or has edits, fewer than two
            images, or no prompts.

    Examples:
        >>> import classlens
        >>> lens = classlens.load("open_clip:ViT-B-32/laion2b_s34b_b79k", class_names=["cat"])  # doctest: +SKIP
        >>> heads = classlens.describe_heads(lens, "photos/", ["red", "round", "two of it"])  # doctest: +SKIP
        >>> heads.prompt.sel(block=11, head=4, rank=0).item()  # doctest: +SKIP
        'red'
    """
    lens._check_model()
    view, module = lens.view, lens.view.module
    if not isinstance(module, ZeroShotClassifier):
        raise ClasslensError(
            f"model {view.name!r} has no text tower, which embeds the prompts: give a model of OpenCLIP as lens"
        )
    if active_edits(module).edits:
        raise ClasslensError(f"model {view.name!r} has edits, and heads are described as they are: leave lens.edit(…)")
    texts = read_list(prompts, "prompts")
    chosen = list(dict.fromkeys(block_indices(view, "all" if blocks is None else blocks)))
    names, pixels = lens._inputs(images, batch_size)
    if len(names) < 2:
        raise ClasslensError("one image was given, over which no head varies: give at least two images")
    outputs = torch.cat([head_outputs(view, pixels[part], chosen).cpu() for part in slices(len(names), batch_size)])
    embeddings = text_embeddings(module, texts).detach().cpu()
    k = min(k, len(texts))
    spans = [[text_span(of_head, embeddings, k) for of_head in outputs[:, b].unbind(1)] for b in range(len(chosen))]
    index = torch.stack([torch.stack([span.text for span in heads]) for heads in spans]).numpy()
    explained = torch.stack([torch.stack([span.explained for span in heads]) for heads in spans]).numpy()
    dims = ("block", "head", "rank")
    words = np.array([*texts, ""], dtype=object)[index]
    coords = {"block": chosen, "head": np.arange(index.shape[1]), "rank": np.arange(k)}
    values = {"prompt": (dims, words), "prompt_index": (dims, index), "explained": (dims, explained)}
    return xr.Dataset(values, coords=coords, attrs={"model": view.name, "images": len(names), "prompts": len(texts)})
