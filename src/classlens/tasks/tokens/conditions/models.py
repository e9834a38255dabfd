"""The unedited model and its random twin."""

from __future__ import annotations

from classlens import palette
from classlens.tasks.tokens.conditions.condition import Condition

CLEAN = Condition(label="trained model", about="the unedited model", color=palette.BLUE)
RANDOM_INIT = Condition(
    label="random twin",
    about="the same architecture with random weights from its library",
    model="random_twin",
    color=palette.GRAY,
)
