"""All edits by the names under which classlens exports them: one row each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classlens.registry import Registry

if TYPE_CHECKING:
    from classlens.forward.edits.edit import Edit

EDITS: Registry[type[Edit]] = Registry(
    "edit",
    {
        "CutAttention": "classlens.forward.edits.cut_attention:CutAttention",
        "NoCls": "classlens.forward.edits.cut_attention:NoCls",
        "SelfOnly": "classlens.forward.edits.self_only:SelfOnly",
        "KeepTokens": "classlens.forward.edits.keep_tokens:KeepTokens",
        "AblateHeads": "classlens.forward.edits.ablate_heads:AblateHeads",
        "AblateNeurons": "classlens.forward.edits.ablate_neurons:AblateNeurons",
        "AblateSublayer": "classlens.forward.edits.ablate_sublayer:AblateSublayer",
        "Patch": "classlens.forward.edits.patch:Patch",
    },
)
