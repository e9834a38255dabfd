"""Image tokens that do not see some other tokens."""

from __future__ import annotations

from classlens import palette
from classlens.forward.edits.cut_attention import NoCls
from classlens.forward.edits.self_only import SelfOnly
from classlens.tasks.tokens.conditions.condition import Condition

SELF_ONLY = Condition(
    label="image tokens see themselves alone",
    about="every image token attends to itself alone",
    edits=lambda kept: (SelfOnly(),),
    color=palette.VERMILLION,
)
NO_CLS = Condition(
    label="image tokens do not see [CLS]",
    about="image tokens do not attend to [CLS]; attention rows are not renormalized",
    edits=lambda kept: (NoCls(),),
    color=palette.ORANGE,
    needs_cls=True,
)
