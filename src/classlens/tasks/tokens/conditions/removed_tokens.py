"""Image tokens that are dropped after position embeddings."""

from __future__ import annotations

from classlens.forward.edits.keep_tokens import KeepTokens
from classlens.tasks.tokens.conditions.condition import Condition

CONTEXT_REMOVED = Condition(
    label="context removed",
    about="image tokens that do not show the class are dropped after position embeddings",
    edits=lambda kept: (KeepTokens(kept),),
    keeps="class",
)
CLASS_REMOVED = Condition(
    label="class removed",
    about="image tokens that show the class are dropped after position embeddings",
    edits=lambda kept: (KeepTokens(kept),),
    keeps="context",
)
OUTLIERS_REMOVED = Condition(
    label="outliers removed",
    about="image tokens whose norm after the last block is an outlier are dropped after position embeddings",
    edits=lambda kept: (KeepTokens(kept),),
    keeps="ordinary",
    in_paper=False,
)
