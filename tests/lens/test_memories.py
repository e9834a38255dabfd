"""Value vectors as text, against the model's own weights read one by one."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import timm

import classlens
from classlens.lens.lens import Lens
from classlens.lens.memories import class_memories, memory_classes
from tests import zoo
from tests.refusals import refused

Sublayer = Literal["attn", "mlp"]


@pytest.fixture(scope="module")
def scaled() -> Lens:
    """A model with LayerScale, the strengths of which differ."""
    module = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, embed_dim=12, depth=2, num_heads=3, num_classes=7, init_values=0.5
    )
    zoo.randomize(module)
    return classlens.load(module, class_names=[f"kind {number}" for number in range(7)])


def vectors(lens: Lens, sublayer: Sublayer, block: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The head's rows and the value vectors, a row each, from timm's own parameters."""
    module: Any = lens.view.module
    chosen = module.blocks[block]
    weight = chosen.attn.proj.weight if sublayer == "attn" else chosen.mlp.fc2.weight
    scale = (chosen.ls1 if sublayer == "attn" else chosen.ls2).gamma
    values = (weight * scale[:, None]).detach().double().numpy().T
    return module.head.weight.detach().double().numpy(), values


@pytest.mark.parametrize("sublayer", ["attn", "mlp"])
@pytest.mark.parametrize("block", [0, 1])
def test_the_classes_of_a_memory(scaled: Lens, sublayer: Sublayer, block: int) -> None:
    prototypes, values = vectors(scaled, sublayer, block)
    classes = memory_classes(scaled, sublayer, block, unit=5, k=4)
    scores = prototypes @ values[5]
    best = np.argsort(-scores)[:4]
    assert classes.category.values.tolist() == best.tolist()
    assert classes.attrs["unit"] == 5
    assert classes.class_name.values.tolist() == [f"kind {number}" for number in best]
    # float32 sums of 12 products of order 1
    np.testing.assert_allclose(classes.score, scores[best], atol=1e-5)
    lengths = np.linalg.norm(prototypes, axis=1) * np.linalg.norm(values[5])
    np.testing.assert_allclose(classes.cosine, (scores / lengths)[best], atol=1e-5)


@pytest.mark.parametrize("sublayer", ["attn", "mlp"])
def test_the_memories_of_a_class(scaled: Lens, sublayer: Sublayer) -> None:
    prototypes, values = vectors(scaled, sublayer, 1)
    ranked = class_memories(scaled, sublayer, 1, "kind 3", k=6)
    scores = values @ prototypes[3]
    best = np.argsort(-scores)[:6]
    assert ranked.unit.values.tolist() == best.tolist()
    np.testing.assert_allclose(ranked.score, scores[best], atol=1e-5)
    assert set(ranked.category.values) == {3}
    tops = (values @ prototypes.T).argmax(axis=1)
    assert ranked.top.values.tolist() == [f"kind {number}" for number in tops[best]]


def test_the_memories_closest_to_their_class(scaled: Lens) -> None:
    prototypes, values = vectors(scaled, "mlp", 0)
    ranked = class_memories(scaled, "mlp", 0, k=5)
    scores = values @ prototypes.T
    top = scores.argmax(axis=1)
    cosines = scores.max(axis=1) / np.linalg.norm(values, axis=1) / np.linalg.norm(prototypes[top], axis=1)
    best = np.argsort(-cosines)[:5]
    assert ranked.unit.values.tolist() == best.tolist()
    assert ranked.category.values.tolist() == top[best].tolist()
    np.testing.assert_allclose(ranked.cosine, cosines[best], atol=1e-5)


def test_more_places_than_there_are(scaled: Lens) -> None:
    assert memory_classes(scaled, "mlp", 0, 0, k=100).sizes["place"] == 7
    assert class_memories(scaled, "attn", 0, 1, k=100).sizes["place"] == 12


def test_refusals(scaled: Lens) -> None:
    refused(lambda: memory_classes(scaled, "mpl", 0, 0), "sublayer 'mpl' is not known")  # type: ignore[arg-type]
    refused(lambda: memory_classes(scaled, "mlp", 2, 0), "block 2 cannot be used: give a whole number from 0 to 1")
    refused(lambda: memory_classes(scaled, "mlp", 0, 48), "unit 48 ", "a whole number from 0 to 47 in mlp")
    refused(
        lambda: memory_classes(scaled, "attn", 0, -1),
        "unit -1 ",
        "a whole number from 0 to 11 in attn",
    )
    refused(lambda: class_memories(scaled, "mlp", 0, 0, k=0), "k 0 cannot be used: give a whole number of at least 1")
    refused(lambda: class_memories(scaled, "mlp", 0, "kind 33"), "kind 33")
