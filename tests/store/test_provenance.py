"""Whatever a result depends on changes the digest that stores are told apart by."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import classlens
from classlens.models.digest import weights_digest
from classlens.models.transforms import Preprocessing, paper_transform
from classlens.store.provenance import transform_digest, transform_pixels
from tests import zoo


@pytest.mark.parametrize("name", ["blocks.1.mlp.fc2.bias", "head.weight", "pos_embed", "a buffer"])
def test_any_number_of_a_model_counts(name: str) -> None:
    model: Any = zoo.build("cls")
    model.register_buffer("angles", torch.ones(3), persistent=False)
    view = classlens.load(model).view
    before = weights_digest(view)
    assert weights_digest(classlens.load(model).view) == before
    tensor = model.angles if name == "a buffer" else dict(model.named_parameters())[name]
    with torch.no_grad():
        tensor.view(-1)[-1] += 1e-3
    assert weights_digest(view) != before


def test_a_transform_counts_by_what_it_does() -> None:
    digests = [
        transform_digest(transform_pixels(Preprocessing(transform)))
        for transform in (
            paper_transform((16, 16)),
            lambda image: paper_transform((16, 16))(image),
            paper_transform((16, 32)),
            lambda image: -paper_transform((16, 16))(image),
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
