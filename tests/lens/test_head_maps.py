"""The map of a head, from timm's parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import classlens
from tests import zoo
from tests.refusals import refused


@pytest.mark.parametrize("name", ["cls_layer_scale", "cls_post_norm"])
def test_pairs_of_a_model_read_by_hand(name: str) -> None:
    model: Any = zoo.build(name)
    names = [f"kind {number}" for number in range(zoo.CLASSES)]
    lens = classlens.load(model, class_names=names)
    pairs = classlens.head_map(lens, 2, 1, k=15)
    attn, embedding = model.blocks[2].attn, model.head.weight.detach()
    value, output = attn.qkv.weight.detach()[48 + 8 : 48 + 16], attn.proj.weight.detach()[:, 8:16]
    if name == "cls_layer_scale":
        output = output * model.blocks[2].ls1.gamma.detach()[:, None]
    whole = torch.stack([embedding @ (output @ (value @ row)) for row in embedding]).numpy()
    order = np.argsort(-whole.ravel())[:15]
    assert pairs.input_class.values.tolist() == (order // zoo.CLASSES).tolist()
    assert pairs.output_name.values.tolist() == [names[entry % zoo.CLASSES] for entry in order]
    np.testing.assert_allclose(pairs.score, whole.ravel()[order], rtol=0, atol=1e-12)
    others = whole - np.diag(np.full(zoo.CLASSES, np.inf))
    assert pairs.attrs["copy_share"] == np.mean(np.diag(whole) > others.max(axis=1))
    assert (pairs.attrs["block"], pairs.attrs["head"]) == (2, 1)
    refused(lambda: classlens.head_map(lens, 3, 0), "block", "from 0 to 2")
    refused(lambda: classlens.head_map(lens, 0, 3), "head", "from 0 to 2")
