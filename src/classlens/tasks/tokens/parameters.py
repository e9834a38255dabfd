"""The group `parameters`: class-value agreement and the top classes of every memory, from weights alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from classlens.core.arrays import Array
from classlens.forward.agreement import SUBLAYERS, Sublayer
from classlens.models.view import ModelView
from classlens.tasks.tokens.schema import class_dtype
from classlens.tasks.tokens.task import memory_tables

# Dims of the memories: input channels of W_O, hidden units of the MLP.
MEMORY_DIMS: Mapping[Sublayer, str] = {"attn": "channel", "mlp": "unit"}


def parameter_facts(views: Mapping[str, ModelView]) -> dict[str, tuple[tuple[str, ...], Array]]:
    """Dims and values of the arrays; ``views`` by the name of their weights, the model first.

    ``class_value_agreement``: the largest cosine between a class and a value vector, for every class (of the first
    readout, where a model has several). ``attn_top_classes``, ``mlp_top_classes``: the classes with the highest scores
    of each value vector, best first.
    """
    agreement = [
        [
            [memory_tables(view).of(view.space, sublayer, block).agreement.cpu().numpy() for block in range(blocks)]
            for sublayer in SUBLAYERS
        ]
        for view in views.values()
        for blocks in [len(view.blocks)]
    ]
    dims = ("weights", "sublayer", "block", "category")
    arrays: dict[str, tuple[tuple[str, ...], Array]] = {
        "class_value_agreement": (dims, np.array(agreement, dtype=np.float32))
    }
    view = next(iter(views.values()))
    for sublayer, dim in MEMORY_DIMS.items():
        tables = [memory_tables(view).of(view.space, sublayer, block) for block in range(len(view.blocks))]
        top = np.stack([memories.by_value.cpu().numpy() for memories in tables])
        arrays[f"{sublayer}_top_classes"] = (("block", dim, "place"), top.astype(class_dtype(view.num_classes)))
    return arrays
