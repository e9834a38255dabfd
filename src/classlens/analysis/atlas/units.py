"""Tables of hidden units: how often they are active, their strongest tokens, and the classes of their value vectors."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classlens.analysis.atlas.heads import strongest_tokens
from classlens.analysis.atlas.stored import AtlasStore
from classlens.analysis.atlas.tables import UNIT_TOKENS as TOKENS_TABLE
from classlens.analysis.atlas.tables import UNIT_VALUES, UNITS
from classlens.tasks.tokens.attribution.schema import UNIT_TOKENS


def unit_table(store: AtlasStore) -> pd.DataFrame:
    """A row for every hidden unit."""
    if not store.has(UNIT_TOKENS):
        return UNITS.frame()
    data = store.group(UNIT_TOKENS)
    value_class = store.whole(UNIT_TOKENS, "value_class", store.num_classes)[..., 0]
    block, unit = index = np.nonzero(value_class >= 0)  # a block may have fewer units than others
    names = np.array(store.class_names, dtype=object)
    return UNITS.frame(
        {
            "block": block,
            "unit": unit,
            "active_share": np.asarray(data["active_share"].values)[index],
            "coefficient": np.asarray(data["coefficient"].values)[..., 0][index],
            "value_class": value_class[index],
            "value_name": names[value_class[index]],
            "value_cosine": np.asarray(data["value_cosine"].values)[..., 0][index],
        }
    )


def unit_value_table(store: AtlasStore) -> pd.DataFrame:
    """A row for each of the best classes of every value vector."""
    if not store.has(UNIT_TOKENS):
        return UNIT_VALUES.frame()
    data = store.group(UNIT_TOKENS)
    value_class = store.whole(UNIT_TOKENS, "value_class", store.num_classes)
    block, unit, class_rank = index = np.nonzero(value_class >= 0)
    return UNIT_VALUES.frame(
        {
            "block": block,
            "unit": unit,
            "class_rank": class_rank,
            "category": value_class[index],
            "class_name": np.array(store.class_names, dtype=object)[value_class[index]],
            "score": np.asarray(data["value_score"].values)[index],
            "cosine": np.asarray(data["value_cosine"].values)[index],
        }
    )


def unit_token_table(store: AtlasStore) -> pd.DataFrame:
    """A row for each of the strongest tokens of every hidden unit."""
    if not store.has(UNIT_TOKENS):
        return TOKENS_TABLE.frame()
    columns, index = strongest_tokens(store, UNIT_TOKENS, "coefficient")
    block, unit, top = index
    return TOKENS_TABLE.frame({"block": block, "unit": unit, "top": top, **columns})
