"""What the parameters alone say: class-value agreement and the top classes of every memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from classlens.forward.agreement import SUBLAYERS, MemoryTables, Sublayer
from classlens.models.view import ModelView
from classlens.store.schema import Array

# What an attention memory and an MLP memory are called: an input channel of W_O, a hidden unit.
MEMORY_DIMS: Mapping[Sublayer, str] = {"attn": "channel", "mlp": "unit"}

Arrays = dict[str, tuple[tuple[str, ...], Array]]


def parameter_facts(views: Mapping[str, tuple[ModelView, MemoryTables]]) -> Arrays:
    """Arrays of the group ``parameters``; ``views`` by the name of their weights, the model's own first.

    ``class_value_agreement``: the largest cosine between a class and a value vector, for every class. For a model with
    several readouts, that of the first. ``attn_top_classes``, ``mlp_top_classes``: the classes that the model's value
    vectors score highest, the best first.
    """
    agreement = [
        [
            [tables.of(view.space, sublayer, block).agreement.cpu().numpy() for block in range(len(view.blocks))]
            for sublayer in SUBLAYERS
        ]
        for view, tables in views.values()
    ]
    found: Arrays = {
        "class_value_agreement": (("weights", "sublayer", "block", "category"), np.array(agreement, dtype=np.float32))
    }
    view, tables = next(iter(views.values()))
    index = np.dtype("int16" if view.num_classes < 2**15 else "int32")
    for sublayer, dim in MEMORY_DIMS.items():
        top = [tables.of(view.space, sublayer, block).by_value.cpu().numpy() for block in range(len(view.blocks))]
        found[f"{sublayer}_top_classes"] = (("block", dim, "place"), np.stack(top).astype(index))
    return found
